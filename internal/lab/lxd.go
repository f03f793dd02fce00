package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"frond/internal/fabric"
)

// lxdPort is where the members of the cluster find each other: LXD's usual one.
const lxdPort = "8443"

// UpLXD starts LXD on the nodes of the document's first segment, one cluster
// over their loopbacks, whose instances land on that segment.
func (l *Lab) UpLXD(ctx context.Context, progress Progress) error {
	f, err := l.Fabric()
	if err != nil {
		return err
	}
	if len(f.Segments) == 0 {
		return inputf("instances live on segments, and the document has none")
	}
	if err := l.checkLXD(f.Segments[0]); err != nil {
		return err
	}
	nodes := f.Segments[0].Nodes
	progress("starting LXD", 0, len(nodes))
	var starting errgroup.Group
	for _, node := range nodes {
		starting.Go(func() error { return l.makeLXDNode(ctx, node) })
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	for i, node := range nodes {
		progress("making one cluster of LXD", i, len(nodes))
		if i == 0 {
			err = l.beginCluster(ctx, f, node)
		} else {
			err = l.joinCluster(ctx, f, node, nodes[0])
		}
		if err != nil {
			return err
		}
	}
	progress("making one cluster of LXD", len(nodes), len(nodes))
	return nil
}

// checkLXD says what is missing before anything is made.
func (l *Lab) checkLXD(s fabric.Segment) error {
	for _, program := range []string{"lxd", "lxc", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a lab with LXD runs the real one (Debian: apt-get install lxd lxd-client busybox-static): %w", err)
		}
	}
	const longest = 107 // of a socket's path (unix(7))
	for _, node := range s.Nodes {
		if socket := filepath.Join(l.LXDDir(node), "seccomp.socket"); len(socket) > longest {
			return inputf("%s is too long a name for LXD in lab %s: its socket %s may have %d bytes", node, l.Name, socket, longest)
		}
	}
	_, err := staticBusybox()
	return err
}

// profileText has instances land on the segment.
const profileText = `profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
    eth0: {type: nic, nictype: bridged, parent: %q, name: eth0}
`

func (l *Lab) beginCluster(ctx context.Context, f *fabric.Fabric, node string) error {
	preseed := fmt.Sprintf("config: {core.https_address: %q}\nstorage_pools: [{name: default, driver: dir}]\n%scluster: {server_name: %q, enabled: true}\n",
		lxdAddress(f, node), fmt.Sprintf(profileText, f.Segments[0].Bridge), node)
	if err := l.lxd(ctx, node, preseed, "init", "--preseed"); err != nil {
		return err
	}
	image, err := os.CreateTemp("", "frond-image-*.tar.gz")
	if err != nil {
		return fmt.Errorf("write the image of instances: %w", err)
	}
	defer func() { _ = os.Remove(image.Name()) }()
	defer func() { _ = image.Close() }()
	if err := WriteImage(image); err != nil {
		return err
	}
	_, err = l.LXC(ctx, node, "image", "import", image.Name(), "--alias", ImageAlias)
	return err
}

func (l *Lab) joinCluster(ctx context.Context, f *fabric.Fabric, node, first string) error {
	if err := l.awaitMember(ctx, f, node, first); err != nil {
		return err
	}
	out, err := l.LXC(ctx, first, "cluster", "add", node, "--quiet")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	preseed := fmt.Sprintf("cluster:\n  enabled: true\n  server_name: %q\n  server_address: %q\n  cluster_token: %q\n"+
		"  member_config: [{entity: storage-pool, name: default, key: source, value: \"\"}]\n",
		node, lxdAddress(f, node), lines[len(lines)-1])
	return l.lxd(ctx, node, preseed, "init", "--preseed")
}

// awaitMember waits until a node reaches the first member over the fabric.
func (l *Lab) awaitMember(ctx context.Context, f *fabric.Fabric, node, first string) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	ctx, cancel := context.WithTimeout(ctx, lxdTime)
	defer cancel()
	return poll(ctx, func() bool {
		return ns.Do(func() error {
			conn, err := net.DialTimeout("tcp", lxdAddress(f, first), time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}) == nil
	}, fmt.Sprintf("%s does not reach %s at %s", node, first, lxdAddress(f, first)))
}

func lxdAddress(f *fabric.Fabric, node string) string {
	n, _ := f.Node(node) // of a segment, so it is there
	return net.JoinHostPort(n.Loopback.String(), lxdPort)
}

// Instance is a container of a lab's LXD.
type Instance struct {
	Name, Node string
	MAC        string
	Address    netip.Addr // by DHCP
}

// instanceName is what LXD takes as a name (RFC 1123).
var instanceName = regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// Launch starts a container, on a node if that is named, and waits until it has
// its address.
func (l *Lab) Launch(ctx context.Context, name, node string) (Instance, error) {
	nodes := l.LXDNodes()
	switch {
	case len(nodes) == 0:
		return Instance{}, inputf("lab %s has no LXD: \"frond lab up --lxd\" makes one that has", l.Name)
	case !instanceName.MatchString(name):
		return Instance{}, inputf("instance %q: want a letter and then letters, digits and dashes, at most 63", name)
	case node != "" && !slices.Contains(nodes, node):
		return Instance{}, inputf("no LXD on %q: it runs on %s", node, strings.Join(nodes, ", "))
	}
	args := []string{"launch", ImageAlias, name, "--quiet"}
	if node != "" {
		args = append(args, "--target", node)
	}
	if _, err := l.LXC(ctx, nodes[0], args...); err != nil {
		return Instance{}, err
	}
	return l.Addressed(ctx, name)
}

// Addressed waits until a container has an address.
func (l *Lab) Addressed(ctx context.Context, name string) (i Instance, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	err = poll(ctx, func() bool {
		var asked error
		i, asked = l.Instance(ctx, name)
		return asked == nil && i.Address.IsValid()
	}, name+" gets no address by DHCP")
	return i, err
}

// Instance is what LXD says of a container.
func (l *Lab) Instance(ctx context.Context, name string) (Instance, error) {
	nodes := l.LXDNodes()
	if len(nodes) == 0 {
		return Instance{}, inputf("lab %s has no LXD", l.Name)
	}
	var config struct {
		Location string            `json:"location"`
		Config   map[string]string `json:"config"`
	}
	var state struct {
		Network map[string]struct {
			Addresses []struct{ Family, Address, Scope string }
		} `json:"network"`
	}
	for path, into := range map[string]any{"/1.0/instances/" + name: &config, "/1.0/instances/" + name + "/state": &state} {
		out, err := l.LXC(ctx, nodes[0], "query", path)
		if err != nil {
			return Instance{}, err
		}
		if err := json.Unmarshal([]byte(out), into); err != nil {
			return Instance{}, fmt.Errorf("read what LXD says of %s: %w", name, err)
		}
	}
	i := Instance{Name: name, Node: config.Location, MAC: config.Config["volatile.eth0.hwaddr"]}
	for _, a := range state.Network["eth0"].Addresses {
		if a.Family == "inet" && a.Scope == "global" {
			i.Address, _ = netip.ParseAddr(a.Address)
		}
	}
	return i, nil
}

// removeLXD removes what LXD has left on the disk and among the cgroups. Nothing
// of it runs any more, but what has just been killed may be in its cgroup yet.
func removeLXD(ctx context.Context, lab string) error {
	ctx, cancel := context.WithTimeout(ctx, endOfProcesses)
	defer cancel()
	var left error
	if err := poll(ctx, func() bool { left = removeCgroups(lab); return left == nil }, "its cgroups are not gone"); err != nil {
		return errors.Join(err, left)
	}
	if err := os.RemoveAll(filepath.Join(lxdRoot, lab)); err != nil {
		return err
	}
	_ = os.Remove(lxdRoot) // unless another lab has something there
	return nil
}
