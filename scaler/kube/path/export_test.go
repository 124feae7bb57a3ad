package path

import "encoding/json"

import "github.com/sluice-autoscaler/sluice/wire"

// Set returns what Run would push now; false before everything expected has settled.
func (d *Driver) Set() (a wire.Assignments, ok bool) {
	body, _, _, err := d.pusher.whole()
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	return a, err == nil && d.pusher.ready()
}
