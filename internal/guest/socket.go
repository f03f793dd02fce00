package guest

import "path/filepath"

// Sockets are where LXD or Incus may answer on this machine: in the directories
// that LXD_DIR and INCUS_DIR name, as for their own clients, and only there if
// one of these is set; otherwise wherever the usual packages have it.
func Sockets(getenv func(string) string) []string {
	var all []string
	for _, variable := range []string{"LXD_DIR", "INCUS_DIR"} {
		if dir := getenv(variable); dir != "" {
			all = append(all, filepath.Join(dir, "unix.socket"))
		}
	}
	if len(all) > 0 {
		return all
	}
	return []string{
		"/var/lib/lxd/unix.socket",
		"/var/snap/lxd/common/lxd/unix.socket",
		"/var/lib/incus/unix.socket",
		"/run/incus/unix.socket",
	}
}
