package versus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"frond/internal/fabric"
	"frond/internal/plan"
)

// FRR are the contenders that run an installed FRR: with its datacenter
// profile, and with what was found to make it faster. Of the two the better
// counts, for each row.
func FRR() []Contender {
	var contenders []Contender
	for _, c := range []Contender{{Name: "FRR", lab: "versusfrr"}, {Name: "FRR tuned", lab: "versustuned"}} {
		tuned := c.lab == "versustuned"
		c.runs = func(_ context.Context, f *Fabric) (daemons, error) {
			return newFRR(f, frrStyle{tuned: tuned, bfd: f.spec.BFD}, f.own()...)
		}
		contenders = append(contenders, c)
	}
	return contenders
}

// frrDaemons is where Debian's package puts them.
const frrDaemons = "/usr/lib/frr"

// FRRVersion tells which FRR is installed; that there is none is an error.
func FRRVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(frrDaemons, "zebra"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("FRR is needed to be measured beside (on Debian: apt install frr): %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(first, "zebra version "), nil
}

// frr is an FRR on each node, with its files in a directory of its own.
type frr struct {
	fabric *Fabric
	style  frrStyle
	dir    string
	uid    int
	gid    int

	mu      sync.Mutex
	running map[string]*exec.Cmd // by node/daemon
}

// newFRR prepares the nodes: what a distribution or an operator does before
// FRR starts.
func newFRR(f *Fabric, style frrStyle, nodes ...fabric.Node) (*frr, error) {
	r := &frr{fabric: f, style: style, running: make(map[string]*exec.Cmd)}
	owner, err := user.Lookup("frr") // the daemons give up root for it
	if err != nil {
		return nil, err
	}
	r.uid, _ = strconv.Atoi(owner.Uid)
	r.gid, _ = strconv.Atoi(owner.Gid)
	if r.dir, err = os.MkdirTemp("", "frond-versus-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(r.dir, 0o755); err != nil { //nolint:gosec // the daemons enter it as another user
		return nil, err
	}
	for _, n := range nodes {
		if err := r.prepare(n); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

// prepare writes a node's configuration, and makes it a router with the devices
// of its segments as the manual says.
func (r *frr) prepare(n fabric.Node) error {
	dir := r.files(n.Name)
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	if err := os.Chown(dir, r.uid, r.gid); err != nil {
		return err
	}
	values := plan.Sysctls()
	var ports []string
	for _, c := range r.fabric.Topology.Cables {
		if near, _, ok := c.At(n.Name); ok {
			ports = append(ports, near.Port)
			values["net/ipv4/conf/"+near.Port+"/rp_filter"] = "0"
			values["net/ipv4/conf/"+near.Port+"/ignore_routes_with_linkdown"] = "1"
			values["net/ipv6/conf/"+near.Port+"/ignore_routes_with_linkdown"] = "1"
		}
	}
	if err := r.fabric.sysctl(n.Name, values); err != nil {
		return err
	}
	for name, text := range r.style.frrConfig(n, ports) {
		if err := os.WriteFile(filepath.Join(dir, name+".conf"), []byte(text), 0o644); err != nil { //nolint:gosec // no secret
			return err
		}
	}
	suppress := "on"
	if r.style.network.IsValid() {
		suppress = "off"
	}
	var devices strings.Builder
	for _, port := range ports {
		fmt.Fprintf(&devices, "link set %s up\n", port)
	}
	for _, s := range r.fabric.doc.Segments {
		if n.Role == fabric.Spine {
			break
		}
		vxlan := "vx-" + s.Name
		fmt.Fprintf(&devices, "link add %s type bridge\n", s.Bridge)
		fmt.Fprintf(&devices, "link add %s type vxlan id %d dstport 4789 nolearning local %s\n", vxlan, s.VNI, n.Loopback)
		fmt.Fprintf(&devices, "link set %s master %s addrgenmode none\n", vxlan, s.Bridge)
		fmt.Fprintf(&devices, "link set %s type bridge_slave neigh_suppress %s learning off\n", vxlan, suppress)
		fmt.Fprintf(&devices, "link set %s addrgenmode none\n", s.Bridge)
		fmt.Fprintf(&devices, "link set %s up\nlink set %s up\n", vxlan, s.Bridge)
	}
	return r.fabric.feed(n.Name, devices.String(), "ip", "-batch", "-")
}

func (r *frr) files(node string) string { return filepath.Join(r.dir, node) }

// netlinkBuffer is how much zebra lets the kernel tell it before it listens, in
// octets, as Debian's /etc/frr/daemons has it. With less, it never hears of the
// last of 50,000 MACs that go at once.
const netlinkBuffer = "90000000"

// start starts all daemons of a node, zebra first: the others would wait 10 s
// before they look for it again.
func (r *frr) start(ctx context.Context, node string) error {
	zebra := []string{"-s", netlinkBuffer}
	if r.style.tuned {
		zebra = append(zebra, "-K", "60") // keeps the routes of the run before for so many seconds
	}
	if err := r.launch(node, "zebra", zebra...); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := os.Stat(filepath.Join(r.files(node), "zserv.api")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("zebra of %s does not come up", node)
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	for _, daemon := range []string{"staticd", "bfdd", "bgpd"} {
		if err := r.launch(node, daemon); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a daemon, unless it runs.
func (r *frr) launch(node, daemon string, args ...string) error {
	dir := r.files(node)
	args = append([]string{
		"-z", filepath.Join(dir, "zserv.api"), "-i", filepath.Join(dir, daemon+".pid"),
		"--vty_socket", dir, "-f", filepath.Join(dir, daemon+".conf"),
	}, args...)
	if daemon == "bfdd" {
		args = append(args, "--bfdctl", filepath.Join(dir, "bfdd.ctl"))
	}
	return r.spawn(node, filepath.Join(frrDaemons, daemon), args...)
}

// spawn starts a program on a node, unless it runs there.
func (r *frr) spawn(node, program string, args ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := node + "/" + filepath.Base(program)
	if r.running[key] != nil {
		return nil
	}
	cmd := exec.Command(program, args...)
	ns, err := r.fabric.Namespace(node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("start %s on %s: %w", program, node, err)
	}
	r.running[key] = cmd
	return nil
}

func (r *frr) kill(_ context.Context, node string) error {
	r.end(node+"/bgpd", syscall.SIGKILL)
	r.end(node+"/zebra", syscall.SIGKILL)
	return os.Remove(filepath.Join(r.files(node), "zserv.api")) // start waits for the next one's
}

// end ends a daemon and waits until it has.
func (r *frr) end(key string, sig syscall.Signal) {
	r.mu.Lock()
	cmd := r.running[key]
	delete(r.running, key)
	r.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	_ = cmd.Wait()
	_ = os.RemoveAll(fmt.Sprintf("/var/tmp/frr/%s.%d", filepath.Base(key), cmd.Process.Pid)) // for its crash log
}

// close ends what runs still and removes the files.
func (r *frr) close() error {
	for key := range r.running {
		r.end(key, syscall.SIGKILL)
	}
	return os.RemoveAll(r.dir)
}

// ask has a node's daemons carry out commands of FRR's command line.
func (r *frr) ask(node string, commands ...string) error {
	args := []string{"--vty_socket", r.files(node)}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("vtysh on %s: %w: %s", node, err, out)
	}
	return nil
}
