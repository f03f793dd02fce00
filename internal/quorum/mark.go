package quorum

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"
)

// What is noted in the database on a member whose node is not to have gateways.
const (
	markDrained = "drained" // the operator wants none there
	markAway    = "away"    // there is no agent that is ready
)

// mark notes on a member that its node is not to have gateways, or that it may
// again for the empty text, by LXD's REST API on this node.
func (d Dialer) mark(ctx context.Context, member, text string) error {
	body, err := json.Marshal(map[string]map[string]string{"config": {markKey: text}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://lxd/1.0/cluster/members/"+url.PathEscape(member), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	local := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", filepath.Join(d.Identity.Dir, "unix.socket"))
	}}
	response, err := local.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("note %q on member %s: %w", text, member, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, largestHandOver))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, clip(string(bytes.TrimSpace(answer))))
	}
	if err != nil {
		return fmt.Errorf("note %q on member %s: %w", text, member, err)
	}
	return nil
}

// markTime bounds how long LXD may take to note something.
const markTime = 5 * time.Second

// note is something to be noted on a member.
type note struct {
	member registered
	text   string
}

// ownNote is what this node's own member should have noted on it and has not.
// What an operator has noted by LXD's own means stays.
func (a *agent) ownNote(r register) (note, bool) {
	want := ""
	switch {
	case a.drained:
		want = markDrained
	case a.leaving:
		want = markAway
	}
	for _, m := range r.members {
		ours := m.mark == "" || m.mark == markDrained || m.mark == markAway
		if m.address == a.self && m.mark != want && (ours || want != "") {
			return note{m, want}, true
		}
	}
	return note{}, false
}
