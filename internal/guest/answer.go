package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"frond/internal/dataplane"
)

const defaultProject = "default"

// What one answer may hold: more is cut off, and a mistake of somebody's.
const (
	maxInstances = 4096  // of one member
	maxCluster   = 16384 // of a whole cluster
	maxNICs      = 16    // of an instance
	maxName      = 63    // bytes of a name, as LXD's own limit (RFC 1123)
)

// envelope is what the hypervisor's API wraps every answer in.
type envelope struct {
	Type     string          `json:"type"`
	Code     int             `json:"error_code"`
	Error    string          `json:"error"`
	Metadata json.RawMessage `json:"metadata"`
}

func noAPI(err error) error { return fmt.Errorf("the answer is none of LXD's API: %w", err) }

// open takes the answer out of its envelope.
func open(body []byte) (json.RawMessage, error) {
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, noAPI(err)
	}
	switch {
	case e.Type == "error" && e.Code == 404:
		return nil, ErrGone
	case e.Type == "error":
		return nil, fmt.Errorf("%s (code %d)", clip(e.Error), e.Code)
	case e.Type != "sync" || len(e.Metadata) == 0:
		return nil, errors.New("the answer is none of LXD's API")
	}
	return e.Metadata, nil
}

// refusal is the error of an answer that has nothing to say otherwise.
func refusal(body []byte) error {
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return noAPI(err)
	}
	if e.Type != "sync" {
		return fmt.Errorf("%s (code %d)", clip(e.Error), e.Code)
	}
	return nil
}

// clip keeps a foreign text short enough for a line.
func clip(text string) string {
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// instanceJSON is an instance in the API's words. Its configuration is null
// where the member that it is on cannot be asked.
type instanceJSON struct {
	Name     string                       `json:"name"`
	Project  string                       `json:"project"`
	Type     string                       `json:"type"`
	Status   string                       `json:"status"`
	Location string                       `json:"location"`
	Config   map[string]string            `json:"expanded_config"`
	Devices  map[string]map[string]string `json:"expanded_devices"`
}

func (i instanceJSON) key() Key {
	if i.Project == "" {
		i.Project = defaultProject
	}
	return Key{i.Project, i.Name}
}

// decodeInstances reads a list of instances: those that are known, and the
// names of those of which nothing but the name is. More than most are an error.
func decodeInstances(metadata json.RawMessage, most int) (known []Instance, unknown []Key, err error) {
	var list []instanceJSON
	if err := json.Unmarshal(metadata, &list); err != nil {
		return nil, nil, fmt.Errorf("read the list of instances: %w", err)
	}
	if len(list) > most {
		return nil, nil, tooMany(len(list), most)
	}
	for _, i := range list {
		instance, ok := i.instance()
		switch {
		case ok:
			known = append(known, instance)
		case validName(i.Name):
			unknown = append(unknown, i.key())
		}
	}
	return known, unknown, nil
}

func tooMany(are, most int) error {
	return fmt.Errorf("%d instances: frond takes at most %d", are, most)
}

func decodeInstance(metadata json.RawMessage) (Instance, error) {
	var i instanceJSON
	if err := json.Unmarshal(metadata, &i); err != nil {
		return Instance{}, fmt.Errorf("read an instance: %w", err)
	}
	instance, ok := i.instance()
	if !ok {
		return Instance{}, ErrUnknown
	}
	return instance, nil
}

func validName(name string) bool { return name != "" && len(name) <= maxName }

// instance is false where the configuration is not known.
func (i instanceJSON) instance() (Instance, bool) {
	if !validName(i.Name) || i.Config == nil || i.Devices == nil {
		return Instance{}, false
	}
	instance := Instance{Key: i.key(), Kind: i.Type, State: i.Status, Location: i.Location}
	for device, options := range i.Devices {
		if nic, ok := i.nic(device, options); ok {
			instance.NICs = append(instance.NICs, nic)
		}
	}
	slices.SortFunc(instance.NICs, func(a, b NIC) int { return strings.Compare(a.Device, b.Device) })
	instance.NICs = instance.NICs[:min(len(instance.NICs), maxNICs)]
	return instance, true
}

// nic reads a device that is a port of a bridge, with what the hypervisor
// itself has chosen for it (volatile.DEVICE.…).
func (i instanceJSON) nic(device string, options map[string]string) (NIC, bool) {
	if options["type"] != "nic" {
		return NIC{}, false
	}
	chosen := func(option string) string {
		if text := options[option]; text != "" {
			return text
		}
		return i.Config["volatile."+device+"."+option]
	}
	mac, err := dataplane.ParseMAC(strings.ToLower(chosen("hwaddr")))
	if err != nil || mac.IsZero() || mac.IsGroup() {
		return NIC{}, false
	}
	nic := NIC{Device: device, MAC: mac, Port: chosen("host_name"), Parent: options["parent"]}
	if nic.Parent == "" {
		nic.Parent = options["network"] // whose bridge bears its name
	}
	for _, option := range []string{"ipv4.address", "ipv6.address"} {
		if a, err := netip.ParseAddr(options[option]); err == nil { // it may be none or auto as well
			nic.Addresses = append(nic.Addresses, a)
		}
	}
	return nic, true
}

// decodeKeys reads a list of instances' addresses in the API.
func decodeKeys(metadata json.RawMessage, most int) ([]Key, error) {
	var list []string
	if err := json.Unmarshal(metadata, &list); err != nil {
		return nil, fmt.Errorf("read the names of instances: %w", err)
	}
	if len(list) > most {
		return nil, tooMany(len(list), most)
	}
	var keys []Key
	for _, source := range list {
		if key, ok := keyOf(source); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// keyOf reads /1.0/instances/NAME?project=PROJECT. What lies below an
// instance, like its snapshots, is no instance.
func keyOf(source string) (Key, bool) {
	u, err := url.Parse(source)
	if err != nil {
		return Key{}, false
	}
	name, ok := strings.CutPrefix(u.Path, "/1.0/instances/")
	if !ok || !validName(name) || strings.Contains(name, "/") {
		return Key{}, false
	}
	project := u.Query().Get("project")
	if project == "" {
		project = defaultProject
	}
	return Key{project, name}, validName(project)
}

// decodeEvent reads what the hypervisor tells of itself; false: nothing that
// is about an instance.
func decodeEvent(message []byte) (Event, bool) {
	var e struct {
		Type     string `json:"type"`
		Project  string `json:"project"`
		Location string `json:"location"`
		Metadata struct {
			Action string `json:"action"`
			Source string `json:"source"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(message, &e); err != nil || e.Type != "lifecycle" {
		return Event{}, false
	}
	key, ok := keyOf(e.Metadata.Source)
	if e.Project != "" && validName(e.Project) {
		key.Project = e.Project
	}
	return Event{Key: key, Location: e.Location, Renamed: e.Metadata.Action == "instance-renamed"}, ok
}

func decodeServer(metadata json.RawMessage) (Server, error) {
	var s struct {
		Environment struct {
			Server    string `json:"server"`
			Version   string `json:"server_version"`
			Name      string `json:"server_name"`
			Clustered bool   `json:"server_clustered"`
		} `json:"environment"`
		Auth   string `json:"auth"`
		Config struct {
			Address string `json:"cluster.https_address"`
		} `json:"config"`
	}
	if err := json.Unmarshal(metadata, &s); err != nil {
		return Server{}, fmt.Errorf("read who answers: %w", err)
	}
	products := map[string]string{"lxd": "LXD", "incus": "Incus"}
	product, ok := products[s.Environment.Server]
	switch {
	case !ok && s.Auth == "untrusted":
		return Server{}, errors.New("the hypervisor does not trust this user")
	case !ok:
		return Server{}, errors.New("neither LXD nor Incus answers")
	}
	server := Server{Product: product, Version: clip(s.Environment.Version), Member: clip(s.Environment.Name), Cluster: s.Environment.Clustered}
	if server.Cluster {
		server.Address = clip(s.Config.Address)
	}
	return server, nil
}
