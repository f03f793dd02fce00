package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/status"
)

// withHypervisor is an agent whose hypervisor answers at a socket.
func withHypervisor(socket string) backend {
	b := overlayBackend()
	b.lxd = status.Hypervisor{Contact: "connected", Socket: socket, Instances: []status.Instance{}}
	if socket == "" {
		b.lxd.Contact = "absent"
	}
	return b
}

// profileServer is a hypervisor with one profile.
func profileServer(t *testing.T, devices map[string]map[string]string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "lxd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/profiles/default", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "sync", "metadata": map[string]any{"devices": devices, "used_by": []string{"/1.0/instances/c1"}}})
	})
	mux.HandleFunc("PUT /1.0/profiles/default", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Devices map[string]map[string]string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		clear(devices)
		for name, options := range body.Devices {
			devices[name] = options
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "sync", "metadata": nil})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error_code": 404, "error": "Profile not found"})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return socket
}

// TestLXDSetup tells first, changes on demand alone, and only once.
func TestLXDSetup(t *testing.T) {
	devices := map[string]map[string]string{"root": {"type": "disk"}}
	socket := serve(t, withHypervisor(profileServer(t, devices)))
	for _, step := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"", 2, "", "name the segment with --segment: there are blue, red, green"},
		{" --segment pink", 2, "", `no segment "pink" on this node: there are blue, red, green`},
		{" --segment blue --profile web", 1, "", "has no profile web in project default"},
		{" --segment blue", 1, "device eth0 is added: name=eth0, nictype=bridged, parent=br-blue, type=nic\n1 instance with this profile", "nothing is changed: --yes changes it"},
		{" --segment blue --yes", 0, "Profile default is changed.", ""},
		{" --segment blue", 0, "instances land on segment blue, bridge br-blue. Nothing is to be changed.", ""},
		{" --segment red --yes", 0, "parent=br-blue becomes br-red", ""},
	} {
		args := strings.Fields("lxd setup --socket " + socket + step.args)
		code, stdout, stderr := command(t, testRoot(), args...)
		if code != step.code || !strings.Contains(stdout, step.stdout) || !strings.Contains(stderr, step.stderr) || step.stderr == "" && stderr != "" {
			t.Errorf("%q: exit code %d\n%s\n%s", step.args, code, stdout, stderr)
		}
	}
	if devices["eth0"]["parent"] != "br-red" || devices["root"]["type"] != "disk" {
		t.Errorf("the profile's devices are %v", devices)
	}
	absent := serve(t, withHypervisor(""))
	if code, _, stderr := command(t, testRoot(), "lxd", "setup", "--segment", "blue", "--socket", absent); code != 1 || stderr == "" {
		t.Errorf("without a hypervisor: exit code %d, %s", code, stderr)
	}
}
