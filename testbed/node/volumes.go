package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// tokens issues service account tokens bound to a pod.
type tokens interface {
	Token(ctx context.Context, pod *v1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
}

// volumes materializes one pod's volumes as directories under dir. It belongs to the pod's worker.
type volumes struct {
	dir    string
	pod    *v1.Pod
	objs   objects
	tokens tokens
	now    func() time.Time

	issued map[string]issuedToken
}

type issuedToken struct {
	token   string
	renewAt time.Time
}

// file is one file of a volume.
type file struct {
	Data []byte
	Mode os.FileMode
}

// write makes all volumes, or brings those whose content has changed up to date.
func (v *volumes) write(ctx context.Context, facts podFacts) error {
	for i := range v.pod.Spec.Volumes {
		vol := &v.pod.Spec.Volumes[i]
		dir := v.path(vol.Name)
		if vol.EmptyDir != nil {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				return err
			}
			continue
		}
		if vol.HostPath != nil {
			if t := vol.HostPath.Type; t != nil && *t == v1.HostPathDirectoryOrCreate {
				if err := os.MkdirAll(vol.HostPath.Path, 0o755); err != nil {
					return err
				}
			}
			continue
		}
		content, err := v.content(ctx, vol, facts)
		if err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err)
		}
		if err := replaceFiles(dir, content); err != nil {
			return fmt.Errorf("write volume %q: %w", vol.Name, err)
		}
	}
	return nil
}

func (v *volumes) path(name string) string { return filepath.Join(v.dir, name) }

// changing tells whether the pod has volumes whose content may change while it runs.
func (v *volumes) changing() bool {
	return slices.ContainsFunc(v.pod.Spec.Volumes, func(vol v1.Volume) bool { return vol.EmptyDir == nil && vol.HostPath == nil })
}

func (v *volumes) content(ctx context.Context, vol *v1.Volume, facts podFacts) (map[string]file, error) {
	switch {
	case vol.ConfigMap != nil:
		return v.configMap(ctx, vol.ConfigMap.Name, vol.ConfigMap.Items, vol.ConfigMap.Optional, mode(vol.ConfigMap.DefaultMode))
	case vol.Secret != nil:
		return v.secret(ctx, vol.Secret.SecretName, vol.Secret.Items, vol.Secret.Optional, mode(vol.Secret.DefaultMode))
	case vol.DownwardAPI != nil:
		return v.downward(vol.DownwardAPI.Items, mode(vol.DownwardAPI.DefaultMode), facts)
	case vol.Projected != nil:
		all := map[string]file{}
		for _, source := range vol.Projected.Sources {
			files, err := v.projection(ctx, vol.Name, source, mode(vol.Projected.DefaultMode), facts)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, files)
		}
		return all, nil
	}
	return nil, errors.New("this kind of volume is not supported by this node")
}

func (v *volumes) projection(ctx context.Context, volume string, s v1.VolumeProjection, m os.FileMode, facts podFacts) (map[string]file, error) {
	switch {
	case s.ConfigMap != nil:
		return v.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, m)
	case s.Secret != nil:
		return v.secret(ctx, s.Secret.Name, s.Secret.Items, s.Secret.Optional, m)
	case s.DownwardAPI != nil:
		return v.downward(s.DownwardAPI.Items, m, facts)
	case s.ServiceAccountToken != nil:
		token, err := v.token(ctx, volume+"/"+s.ServiceAccountToken.Path, s.ServiceAccountToken)
		return map[string]file{s.ServiceAccountToken.Path: {Data: []byte(token), Mode: m}}, err
	}
	return nil, errors.New("this kind of projection is not supported by this node")
}

// token keeps a token until four fifths of its life are over, as a kubelet does.
func (v *volumes) token(ctx context.Context, key string, p *v1.ServiceAccountTokenProjection) (string, error) {
	now := v.now()
	if t, ok := v.issued[key]; ok && now.Before(t.renewAt) {
		return t.token, nil
	}
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	token, expires, err := v.tokens.Token(ctx, v.pod, p.Audience, seconds)
	if err != nil {
		return "", err
	}
	if v.issued == nil {
		v.issued = map[string]issuedToken{}
	}
	v.issued[key] = issuedToken{token: token, renewAt: now.Add(expires.Sub(now) * 4 / 5)}
	return token, nil
}

func mode(m *int32) os.FileMode {
	if m == nil {
		return 0o644
	}
	return os.FileMode(*m)
}

func (v *volumes) configMap(ctx context.Context, name string, items []v1.KeyToPath, optional *bool, m os.FileMode) (map[string]file, error) {
	cm, err := v.objs.ConfigMap(ctx, v.pod.Namespace, name)
	if err != nil {
		return nil, forgive(err, optional)
	}
	data := map[string][]byte{}
	for k, s := range cm.Data {
		data[k] = []byte(s)
	}
	maps.Copy(data, cm.BinaryData)
	return pick(data, items, optional, m)
}

func (v *volumes) secret(ctx context.Context, name string, items []v1.KeyToPath, optional *bool, m os.FileMode) (map[string]file, error) {
	s, err := v.objs.Secret(ctx, v.pod.Namespace, name)
	if err != nil {
		return nil, forgive(err, optional)
	}
	return pick(s.Data, items, optional, m)
}

func pick(data map[string][]byte, items []v1.KeyToPath, optional *bool, m os.FileMode) (map[string]file, error) {
	files := map[string]file{}
	if len(items) == 0 {
		for k, d := range data {
			files[k] = file{Data: d, Mode: m}
		}
		return files, nil
	}
	for _, item := range items {
		d, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent config key: %s", item.Key)
		}
		f := file{Data: d, Mode: m}
		if item.Mode != nil {
			f.Mode = os.FileMode(*item.Mode)
		}
		files[item.Path] = f
	}
	return files, nil
}

func (v *volumes) downward(items []v1.DownwardAPIVolumeFile, m os.FileMode, facts podFacts) (map[string]file, error) {
	files := map[string]file{}
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = fieldValue(v.pod, item.FieldRef.FieldPath, facts)
		case item.ResourceFieldRef != nil:
			text = resourceValue(v.pod, &v1.Container{}, item.ResourceFieldRef, facts)
		}
		if err != nil {
			return nil, err
		}
		f := file{Data: []byte(text), Mode: m}
		if item.Mode != nil {
			f.Mode = os.FileMode(*item.Mode)
		}
		files[item.Path] = f
	}
	return files, nil
}

// mounts gives the bind mounts of a container. Directories that a subPath names are made where the
// volume is the pod's own.
func (v *volumes) mounts(c *v1.Container, lookup func(string) (string, bool)) ([]mountSpec, error) {
	var list []mountSpec
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(v.pod.Spec.Volumes, func(vol v1.Volume) bool { return vol.Name == m.Name })
		if i < 0 {
			return nil, fmt.Errorf("volume %q is not in the pod", m.Name)
		}
		vol := &v.pod.Spec.Volumes[i]
		source := v.path(m.Name)
		if vol.HostPath != nil {
			source = vol.HostPath.Path
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, lookup)
		}
		if sub != "" {
			if !filepath.IsLocal(sub) {
				return nil, fmt.Errorf("subPath %q leaves the volume", sub)
			}
			source = filepath.Join(source, sub)
			if _, err := os.Stat(source); err != nil && vol.EmptyDir != nil {
				if err := os.MkdirAll(source, 0o777); err != nil {
					return nil, err
				}
			}
		}
		// The shim sees the host's root elsewhere, so a link must be followed here.
		source, err := filepath.EvalSymlinks(source)
		if err != nil {
			return nil, err
		}
		projected := vol.EmptyDir == nil && vol.HostPath == nil
		list = append(list, mountSpec{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly || projected})
	}
	return list, nil
}

// replaceFiles makes dir hold exactly these files, switching from the old content to the new at one
// stroke by a link, so that a reader never sees half of an update. Nothing is written if nothing
// has changed.
func replaceFiles(dir string, files map[string]file) error {
	const current = "..data"
	stamp, err := json.Marshal(files)
	if err != nil {
		return err
	}
	stampFile := dir + ".stamp"
	if old, err := os.ReadFile(stampFile); err == nil && string(old) == string(stamp) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, "..v")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leaves the volume", name)
		}
		p := filepath.Join(fresh, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.Data, f.Mode); err != nil {
			return err
		}
		if err := os.Chmod(p, f.Mode); err != nil {
			return err
		}
	}
	old, _ := os.Readlink(filepath.Join(dir, current))
	next := filepath.Join(dir, "..next")
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(dir, current)); err != nil {
		return err
	}
	if err := linkVisible(dir, files); err != nil {
		return err
	}
	if old != "" {
		_ = os.RemoveAll(filepath.Join(dir, old))
	}
	return os.WriteFile(stampFile, stamp, 0o600)
}

// linkVisible makes dir's first-level names links into its current content.
func linkVisible(dir string, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(filepath.Clean(name), "/")
		want[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !want[e.Name()] {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	for top := range want {
		err := os.Symlink(filepath.Join("..data", top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
