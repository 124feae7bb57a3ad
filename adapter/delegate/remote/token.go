package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// IssueToken makes a token, and says until when it holds.
type IssueToken func(ctx context.Context) (token string, expires time.Time, err error)

const (
	// tokenPeriod is how often it is looked whether a token is to be renewed, and the least time
	// between two attempts.
	tokenPeriod = 10 * time.Second
	// tokenTimeout bounds one attempt.
	tokenTimeout = 5 * time.Second
)

// Tokens keeps a token while it holds. It is safe for concurrent use.
type Tokens struct {
	issue IssueToken
	clock func() time.Time
	// issuing is held while a token is made.
	issuing sync.Mutex

	mu      sync.Mutex
	token   string
	renew   time.Time
	expires time.Time
	tried   time.Time
	err     error
}

// NewTokens makes Tokens that have none yet. Where issue is nil there never is one.
func NewTokens(issue IssueToken, clock func() time.Time) *Tokens {
	return &Tokens{issue: issue, clock: clock}
}

// held gives the token that holds, else the error of the last attempt if that is not long ago.
func (t *Tokens) held(now time.Time) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != "" && now.Before(t.expires) {
		return t.token, nil
	}
	if t.err != nil && now.Sub(t.tried) < tokenPeriod {
		return "", t.err
	}
	return "", nil
}

// get gives a token. It waits for one only where none holds.
func (t *Tokens) get(ctx context.Context) (string, error) {
	if t.issue == nil {
		return "", errors.New("there is no ServiceAccount to get a token of: want --delegate-service-account, or an identity")
	}
	if token, err := t.held(t.clock()); token != "" || err != nil {
		return token, err
	}
	t.issuing.Lock()
	defer t.issuing.Unlock()
	if token, err := t.held(t.clock()); token != "" || err != nil { // somebody else made one
		return token, err
	}
	return t.make(ctx)
}

// make makes a token.
func (t *Tokens) make(ctx context.Context) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	now := t.clock()
	token, expires, err := t.issue(bounded)
	if err == nil && (token == "" || !expires.After(now)) {
		err = fmt.Errorf("it holds until %v", expires)
	}
	if err != nil {
		err = fmt.Errorf("get a token of Sluice's ServiceAccount: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.token, t.expires, t.renew, t.tried, t.err = token, expires, now.Add(expires.Sub(now)*2/3), now, nil
	case ctx.Err() == nil: // a caller that went away says nothing
		t.tried, t.err = now, err
	}
	return token, err
}

// refused says that a provider refused a token: it is renewed soon.
func (t *Tokens) refused(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.renew = time.Time{}
	}
}

// Run renews a token that was used, at two thirds of its life, until ctx ends.
func (t *Tokens) Run(ctx context.Context) {
	tick := time.NewTicker(tokenPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.mu.Lock()
		due := t.token != "" && !t.clock().Before(t.renew)
		t.mu.Unlock()
		if due {
			t.issuing.Lock()
			_, _ = t.make(ctx) // kept for get
			t.issuing.Unlock()
		}
	}
}
