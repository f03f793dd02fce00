package guest

import (
	"slices"
	"testing"
)

func TestSockets(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"LXD_DIR", map[string]string{"LXD_DIR": "/a"}, []string{"/a/unix.socket"}},
		{"INCUS_DIR", map[string]string{"INCUS_DIR": "/b/"}, []string{"/b/unix.socket"}},
		{"both", map[string]string{"LXD_DIR": "/a", "INCUS_DIR": "/b"}, []string{"/a/unix.socket", "/b/unix.socket"}},
	} {
		if got := Sockets(func(name string) string { return test.env[name] }); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if got := Sockets(func(string) string { return "" }); !slices.Contains(got, "/var/lib/lxd/unix.socket") || !slices.Contains(got, "/var/lib/incus/unix.socket") {
		t.Errorf("neither: %v", got)
	}
}
