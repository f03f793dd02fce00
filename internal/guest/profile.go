package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Profile is what instances of a hypervisor have in common. Its devices are
// options by name.
type Profile struct {
	Project, Name string
	Description   string
	Config        map[string]string
	Devices       map[string]map[string]string
	Users         int // instances that have it

	etag string // that it was read with
}

// profileJSON is a profile in the API's words.
type profileJSON struct {
	Description string                       `json:"description"`
	Config      map[string]string            `json:"config"`
	Devices     map[string]map[string]string `json:"devices"`
	UsedBy      []string                     `json:"used_by,omitempty"`
}

// The options of the interface that Onto is about.
const (
	usualNIC = "eth0" // its name, unless the profile has another on the bridge
	bridged  = "bridged"
)

// Onto is the profile with an interface on a bridge, and in words what is
// changed for that; nothing where it has one already. Instances take the MTU of
// the bridge, which is not the same on every node, unless the profile says one:
// one that is too large for the bridge has to go.
func (p Profile) Onto(bridge string, mtu int) (Profile, []string) {
	name := p.nicOn(bridge)
	before, known := p.Devices[name]
	after := maps.Clone(before)
	if !known {
		after = map[string]string{"name": name}
	}
	after["type"], after["nictype"], after["parent"] = "nic", bridged, bridge
	delete(after, "network") // it would be another bridge's
	if said, err := strconv.Atoi(after["mtu"]); after["mtu"] != "" && (err != nil || said > mtu) {
		delete(after, "mtu")
	}
	changes := differences(name, before, after)
	if len(changes) == 0 {
		return p, nil
	}
	next := p
	next.Devices = maps.Clone(p.Devices)
	if next.Devices == nil {
		next.Devices = make(map[string]map[string]string)
	}
	next.Devices[name] = after
	return next, changes
}

// nicOn is the name of the profile's interface on a bridge, or of the one that is
// to be there.
func (p Profile) nicOn(bridge string) string {
	for _, name := range slices.Sorted(maps.Keys(p.Devices)) {
		if d := p.Devices[name]; d["type"] == "nic" && d["parent"] == bridge {
			return name
		}
	}
	return usualNIC
}

// differences are those between the options of a device, in words.
func differences(name string, before, after map[string]string) []string {
	if before == nil {
		var options []string
		for _, key := range slices.Sorted(maps.Keys(after)) {
			options = append(options, key+"="+after[key])
		}
		return []string{"device " + name + " is added: " + strings.Join(options, ", ")}
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	var changes []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch was, is := before[key], after[key]; {
		case was == is:
		case was == "":
			changes = append(changes, fmt.Sprintf("device %s: %s=%s is added", name, key, is))
		case is == "":
			changes = append(changes, fmt.Sprintf("device %s: %s=%s is removed", name, key, was))
		default:
			changes = append(changes, fmt.Sprintf("device %s: %s=%s becomes %s", name, key, was, is))
		}
	}
	return changes
}

func profilePath(name string) string { return "/1.0/profiles/" + url.PathEscape(name) }

// Profile reads a profile; ErrGone if there is none.
func (c *Client) Profile(ctx context.Context, project, name string) (Profile, error) {
	header, body, err := c.do(ctx, question{method: http.MethodGet, path: profilePath(name), query: url.Values{"project": {project}}})
	if err != nil {
		return Profile{}, err
	}
	metadata, err := open(body)
	if err != nil {
		return Profile{}, err
	}
	var read profileJSON
	if err := json.Unmarshal(metadata, &read); err != nil {
		return Profile{}, fmt.Errorf("read profile %s: %w", name, err)
	}
	return Profile{
		Project: project, Name: name, Description: read.Description, Config: read.Config, Devices: read.Devices,
		Users: len(read.UsedBy), etag: header.Get("ETag"),
	}, nil
}

// SetProfile replaces a profile by one that was made of it; that somebody else
// has changed it meanwhile is an error.
func (c *Client) SetProfile(ctx context.Context, p Profile) error {
	body, err := json.Marshal(profileJSON{Description: p.Description, Config: p.Config, Devices: p.Devices})
	if err != nil {
		return err
	}
	_, answer, err := c.do(ctx, question{
		method: http.MethodPut, path: profilePath(p.Name), query: url.Values{"project": {p.Project}},
		header: http.Header{"If-Match": {p.etag}, "Content-Type": {"application/json"}}, body: bytes.NewReader(body),
	})
	if err != nil {
		return err
	}
	return refusal(answer)
}
