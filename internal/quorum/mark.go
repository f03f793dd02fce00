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

// noticed is what LXD lets be changed of a member, and answers with in one
// envelope. All of it has to be given back: what is left out is taken for
// something to be removed.
type noticed struct {
	Metadata struct {
		Description   string            `json:"description"`
		Config        map[string]string `json:"config"`
		FailureDomain string            `json:"failure_domain"`
		Groups        []string          `json:"groups"`
		Roles         []string          `json:"roles"`
	} `json:"metadata"`
}

// mark notes on a member that its node is not to have gateways, or that it may
// again for the empty text, by LXD's REST API on this node. Should somebody else
// change the member meanwhile, that stays and this is an error.
func (d Dialer) mark(ctx context.Context, name, text string) error {
	path := "/1.0/cluster/members/" + url.PathEscape(name)
	header, body, err := d.rest(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return fmt.Errorf("read member %s: %w", name, err)
	}
	var m noticed
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("read member %s: %w", name, err)
	}
	if m.Metadata.Config == nil {
		m.Metadata.Config = make(map[string]string)
	}
	m.Metadata.Config[markKey] = text
	if text == "" {
		delete(m.Metadata.Config, markKey)
	}
	changed, err := json.Marshal(m.Metadata)
	if err == nil {
		_, _, err = d.rest(ctx, http.MethodPut, path, header.Get("ETag"), changed)
	}
	if err != nil {
		return fmt.Errorf("note %q on member %s: %w", text, name, err)
	}
	return nil
}

// rest asks LXD's REST API on this node.
func (d Dialer) rest(ctx context.Context, method, path, match string, body []byte) (http.Header, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://lxd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if match != "" {
		request.Header.Set("If-Match", match)
	}
	local := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", filepath.Join(d.Identity.Dir, "unix.socket"))
	}}
	response, err := local.RoundTrip(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, largestHandOver))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, clip(string(bytes.TrimSpace(answer))))
	}
	return response.Header, answer, err
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
