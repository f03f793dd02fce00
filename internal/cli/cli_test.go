package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"frond/internal/api"
	"frond/internal/fabric"
	"frond/internal/node"
	"frond/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is an agent's answers.
type backend struct {
	snapshot status.Snapshot
	routes   []status.Route
	segments []status.Segment
	macs     []status.MAC
	evpn     []status.EVPNRoute
	gateways []status.Gateway
	guard    status.Guard
	leases   []status.Lease
	lxd      status.Hypervisor
	refusal  error // of reload, down, thaw and drain

	nodes      []status.Host
	forwarding map[status.Destination]status.Forwarding
}

func (b backend) Status() status.Snapshot      { return b.snapshot }
func (b backend) Vitals() status.Vitals        { return status.Vitals{} }
func (b backend) Reload(context.Context) error { return b.refusal }
func (b backend) Segments() []status.Segment   { return b.segments }
func (b backend) EVPN() []status.EVPNRoute     { return b.evpn }
func (b backend) Down(context.Context) error   { return b.refusal }

func (b backend) Nodes() []status.Host { return b.nodes }
func (b backend) Forwarding(_ context.Context, to status.Destination) (status.Forwarding, error) {
	return b.forwarding[to], nil
}

func (b backend) Hypervisor() status.Hypervisor                 { return b.lxd }
func (b backend) Gateways() []status.Gateway                    { return b.gateways }
func (b backend) Leases(context.Context, string) []status.Lease { return b.leases }
func (b backend) Release(context.Context, netip.Addr) error     { return b.refusal }
func (b backend) Drain(context.Context, string, bool) error     { return b.refusal }

func (b backend) Thaw(context.Context, string, string) error { return b.refusal }

func (b backend) MACs(segment string) []status.MAC {
	return slices.DeleteFunc(slices.Clone(b.macs), func(m status.MAC) bool { return segment != "" && segment != m.Segment })
}

func (b backend) Routes(prefix netip.Prefix) []status.Route {
	if !prefix.IsValid() {
		return b.routes
	}
	var inside []status.Route
	for _, r := range b.routes {
		if p := netip.MustParsePrefix(r.Prefix); p.Bits() >= prefix.Bits() && prefix.Contains(p.Addr()) {
			inside = append(inside, r)
		}
	}
	return inside
}

// serve answers as b until the test ends and returns the socket.
func serve(t *testing.T, b backend) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "frond.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, socket, b, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, err := os.Lstat(socket); err != nil; _, err = os.Lstat(socket) {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	return socket
}

// command runs one command line in this process.
func command(t *testing.T, root *cobra.Command, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), root, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func testRoot() *cobra.Command {
	return program{
		now:      func() time.Time { return noon },
		newAgent: func(node.Config, *slog.Logger) (agent, error) { return nil, errors.New("no such thing") },
	}.root()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodDocument = `fabric: apollo
underlay:
  loopbacks: [10.0.0.0/16]
  ports: ["eth*"]
nodes:
  spine1: {role: spine, loopback: 10.0.254.1}
  leaf1: {loopback: 10.0.200.1}
`

func TestExitCodes(t *testing.T) {
	good := serve(t, overlayBackend())
	broken := serve(t, backend{snapshot: brokenNode(), refusal: errors.New("fabric.yaml:3:5: nodes: there are none")})
	starting := healthyNode()
	starting.Ready = false
	unready := serve(t, backend{snapshot: starting})
	warned := brokenNode()
	warned.Conditions = warned.Conditions[1:]
	warning := serve(t, backend{snapshot: warned})
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	document := writeFile(t, "fabric.yaml", goodDocument)
	bad := writeFile(t, "bad.yaml", goodDocument+"colour: green\n")

	for _, test := range []struct {
		args   string
		code   int
		stdout string // part of it
		stderr string // part of it; empty: nothing
	}{
		{"", 0, "Usage:", ""},
		{"--help", 0, "Ask a node:", ""},
		{"--version", 0, "frond ", ""},
		{"version", 0, "frond ", ""},
		{"version -o json", 0, `"version":`, ""},
		{"stats", 2, "", `frond: frond has no verb "stats", did you mean status?; see frond --help`},
		{"completion", 0, "bash", ""},
		{"completion bash", 0, "frond", ""},
		{"completion cobol", 2, "", `frond: frond completion has no verb "cobol"`},
		{"status --sockt x", 2, "", "frond: unknown flag: --sockt; see frond status --help"},
		{"status now", 2, "", "see frond status --help"},
		{"status -o xml", 2, "", "it is one of table, json and yaml"},
		{"status --socket " + good, 0, "leaf1, leaf of fabric apollo: ready", ""},
		{"status --socket " + good + " -o json", 0, `"fabric": "apollo"`, ""},
		{"status --socket " + good + " -o yaml", 0, "fabric: apollo\n", ""},
		{"status --socket " + broken, 1, "failing", ""},
		{"status --socket " + unready, 1, "not ready", ""},
		{"status --socket " + warning, 0, "port-no-carrier", ""},
		{"status --socket " + nobody, 1, "", "frond: no agent answers on " + nobody + ": is it running? (systemctl status frond)"},
		{"peers --socket " + broken, 0, "the hold timer expired", ""},
		{"peers --socket " + nobody, 1, "", "no agent answers"},
		{"routes --socket " + good, 0, "10.0.200.1/32", ""},
		{"routes --socket " + good + " 10.0.200.2", 0, "spine1 on eth1", ""},
		{"routes --socket " + good + " 192.0.2.0/24", 1, "no routes", ""},
		{"routes --socket " + good + " 192.0.2.0/24 -o json", 1, `"routes": []`, ""},
		{"routes ten", 2, "", `frond: "ten" is no prefix: write it as`},
		{"routes 10.0.0.0/8 10.0.0.0/16", 2, "", "see frond routes --help"},
		{"segments --socket " + good, 0, "br-blue", ""},
		{"segments --socket " + good + " -o json", 0, `"vni": 100`, ""},
		{"segments blue", 2, "", "see frond segments --help"},
		{"segments --socket " + nobody, 1, "", "no agent answers"},
		{"macs --socket " + good, 0, "02:67:00:00:00:01", ""},
		{"macs --socket " + good + " red", 0, "no MACs are known", ""},
		{"macs blue red", 2, "", "see frond macs --help"},
		{"macs thaw --socket " + good + " 02:67:00:00:00:01", 0, "02:67:00:00:00:01 may move again", ""},
		{"macs thaw --socket " + broken + " 02:67:00:00:00:01", 1, "", "frond: thaw: fabric.yaml"},
		{"macs thaw --socket " + nobody + " 02:67:00:00:00:01", 1, "", "no agent answers"},
		{"macs thaw", 2, "", "see frond macs thaw --help"},
		{"lxd status --socket " + good, 1, "member leaf1 at /var/lib/lxd/unix.socket does not answer as it should", ""},
		{"drain --socket " + good + " leaf1", 0, "leaf1: its elected gateways move to other nodes", ""},
		{"leases release --socket " + good + " 172.16.0.11", 0, "172.16.0.11: its lease is ended", ""},
		{"undrain --socket " + good + " leaf1", 0, "leaf1: elected gateways may come to it again", ""},
		{"drain --socket " + broken + " leaf1", 1, "", "frond: drain: fabric.yaml"},
		{"drain", 2, "", "see frond drain --help"},
		{"evpn --socket " + good, 0, "[3]:[0]:[32]:[10.0.200.1]", ""},
		{"evpn --socket " + good + " -o yaml", 0, "routes:\n", ""},
		{"guard --socket " + good, 0, "address", ""},
		{"guard --socket " + good + " -o yaml", 0, "routes:\n", ""},
		{"guard 2", 2, "", "see frond guard --help"},
		{"evpn 2", 2, "", "see frond evpn --help"},
		{"reload --socket " + good, 0, "in force", ""},
		{"reload --socket " + broken, 1, "", "frond: reload: fabric.yaml:3:5: nodes: there are none"},
		{"reload --socket " + nobody, 1, "", "no agent answers"},
		{"down --socket " + good, 0, "out of the fabric", ""},
		{"down --socket " + broken, 1, "", "frond: down: "},
		{"validate " + document, 0, document + " is valid: 2 nodes, 0 segments\n", ""},
		{"validate " + bad, 2, "", "frond: " + bad + ":8:1: colour"},
		{"validate " + nobody, 2, "", "frond: " + nobody},
		{"validate", 2, "", "see frond validate --help"},
		{"schema", 0, `"$schema"`, ""},
		{"agent --log-level loud", 2, "", `log level "loud" is none of`},
		{"agent", 1, "", "frond: no such thing"},
		{"agent now", 2, "", "see frond agent --help"},
	} {
		code, stdout, stderr := command(t, testRoot(), strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
			t.Errorf("frond %s: exit code %d, want %d\nstdout: %s\nstderr: %s", test.args, code, test.code, stdout, stderr)
		}
		if (stderr == "") != (test.stderr == "") || strings.Count(stderr, "\n") > 1 {
			t.Errorf("frond %s: stderr is %q", test.args, stderr)
		}
		if test.stdout == "" && stdout != "" {
			t.Errorf("frond %s: stdout is %q", test.args, stdout)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errUnhealthy, 1, ""},
		{fmt.Errorf("exec: %w", exitError(7)), 7, ""},
		{context.Canceled, 1, "interrupted"},
		{errors.Join(errors.New("one"), errors.New("two")), 1, "one; two"},
		{usageError{errors.New("what?")}, 2, "what?"},
		{fmt.Errorf("plan: %w", &fabric.Error{File: "f.yaml", Line: 1, Column: 2, Problem: "no"}), 2, "plan: f.yaml:1:2: no"},
		{&fabric.UnknownNodeError{Fabric: "apollo", Node: "leef1", Hint: "did you mean leaf1?"}, 2, "fabric apollo has no node leef1; did you mean leaf1?"},
	} {
		if code, text := exitCode(test.err), errorText(test.err); code != test.code || text != test.text {
			t.Errorf("%v: %d %q, want %d %q", test.err, code, text, test.code, test.text)
		}
	}
}

// What -o json and -o yaml print is what the agent said, nothing less.
func TestFormatsLoseNothing(t *testing.T) {
	want := brokenNode()
	socket := serve(t, backend{snapshot: want})
	for form, decode := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": fromYAML} {
		_, stdout, _ := command(t, testRoot(), "status", "-o", form, "--socket", socket)
		var got status.Snapshot
		if err := decode([]byte(stdout), &got); err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
	}
}

// fromYAML reads YAML as the JSON that it stands for.
func fromYAML(text []byte, into any) error {
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return err
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(asJSON, into)
}

func TestCompletion(t *testing.T) {
	socket := serve(t, backend{routes: someRouteList().Routes})
	document := writeFile(t, "fabric.yaml", goodDocument)
	for _, test := range []struct{ args, want string }{
		{"routes --socket " + socket + " ", "10.0.200.2/32\tspine1 on eth1, spine2 on eth2 (stale)\n"},
		{"agent --config " + document + " --node ", "leaf1\tleaf 10.0.200.1\n"},
		{"macs thaw --socket " + serve(t, overlayBackend()) + " ", "02:67:00:00:00:02\tblue, 10.0.200.2\n"},
		{"peers -o ", "table\njson\nyaml\n"},
	} {
		line := append([]string{cobra.ShellCompRequestCmd}, strings.Split(test.args, " ")...)
		_, stdout, _ := command(t, testRoot(), line...)
		if !strings.Contains(stdout, test.want) {
			t.Errorf("frond %s<TAB>: %s", test.args, stdout)
		}
	}
}

// fakeAgent is a node whose Run is the test's.
type fakeAgent struct {
	run     func(context.Context) error
	reloads chan error
}

func (a fakeAgent) Run(ctx context.Context) error { return a.run(ctx) }
func (a fakeAgent) Reload(context.Context) error  { return <-a.reloads }

func TestAgent(t *testing.T) {
	var got node.Config
	a := fakeAgent{reloads: make(chan error)}
	a.run = func(ctx context.Context) error {
		for _, refusal := range []error{errors.New("nodes: there are none"), nil} {
			if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
				return err
			}
			select {
			case a.reloads <- refusal:
			case <-ctx.Done():
				return errors.New("SIGHUP did not reload")
			}
		}
		return ctx.Err()
	}
	t.Setenv("LXD_DIR", "/lxd")
	t.Setenv("INCUS_DIR", "")
	root := program{now: time.Now, newAgent: func(c node.Config, _ *slog.Logger) (agent, error) {
		got = c
		return a, nil
	}}.root()
	code, stdout, stderr := command(t, root, "agent", "--config", "/etc/f.yaml", "--node", "leaf1", "--state", "s", "--socket", "/run/x/a.sock", "--withdraw")
	if code != 0 || stdout != "" {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	want := node.Config{Document: "/etc/f.yaml", Node: "leaf1", StateDir: "s", Socket: "/run/x/a.sock", BFDSocket: "/run/x/bfd.sock", PKI: "/etc/frond/pki", StoreDir: "s/store",
		Withdraw: true, Version: got.Version, Executable: got.Executable,
		Hypervisors: []string{"/lxd/unix.socket"}}
	if diff := cmp.Diff(want, got); diff != "" || got.Version == "" || !filepath.IsAbs(got.Executable) {
		t.Errorf("%+v\n%s", got, diff)
	}
	first, _, _ := strings.Cut(stderr, "\n")
	var line struct{ Level, Msg, Error string }
	if err := json.Unmarshal([]byte(first), &line); err != nil || line.Level != "ERROR" || line.Error != "nodes: there are none" {
		t.Errorf("log of the refused reload: %v %s", err, stderr)
	}
}

func TestAgentIsThisHost(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var c node.Config
	if err := complete(&c); err != nil || c.Node != host {
		t.Errorf("node %q, %v; want %q", c.Node, err, host)
	}
}

func TestLogLevel(t *testing.T) {
	var text bytes.Buffer
	log, err := logger(&text, "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "took", 1500*time.Millisecond)
	if got := text.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"msg":"loud","took":"1.5s"`) {
		t.Error(got)
	}
	if _, err := logger(io.Discard, "loud"); err == nil {
		t.Error("a level that is none was taken")
	}
}

func (b backend) Guard() status.Guard { return b.guard }
