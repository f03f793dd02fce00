package versus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Keepalived are the contenders whose gateway is keepalived's, on the first two
// leafs, over segments of FRR's: with adverts each second, and each 0.1 s.
func Keepalived() []Contender {
	var contenders []Contender
	for _, c := range []struct {
		lab    string
		advert time.Duration
	}{{"versuskeepone", time.Second}, {"versuskeeptenth", 100 * time.Millisecond}} {
		contenders = append(contenders, Contender{
			Name: fmt.Sprintf("keepalived %g s", c.advert.Seconds()), lab: c.lab,
			runs: func(_ context.Context, f *Fabric) (daemons, error) {
				r, err := newFRR(f, frrStyle{tuned: true, network: f.doc.Segments[0].Prefix}, f.own()...)
				if err != nil {
					return nil, err
				}
				return &keepalived{r, c.advert}, nil
			},
		})
	}
	return contenders
}

// KeepalivedVersion tells which keepalived is installed; none is an error.
func KeepalivedVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "keepalived", "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("keepalived is needed to be measured beside (on Debian: apt install keepalived): %w", err)
	}
	_, version, _ := strings.Cut(string(out), "Keepalived v")
	version, _, _ = strings.Cut(version, " ")
	return version, nil
}

// keepalived is FRR, and keepalived on two leafs.
type keepalived struct {
	*frr
	advert time.Duration
}

// keepers have keepalived.
var keepers = []string{"leaf1", "leaf2"}

func (k *keepalived) start(ctx context.Context, node string) error {
	place := slices.Index(keepers, node)
	if err := k.frr.start(ctx, node); err != nil || place < 0 {
		return err
	}
	segment := k.fabric.doc.Segments[0]
	bits := segment.Prefix.Bits()
	// An address of its own, by which it sends its adverts.
	if err := k.fabric.run(node, "ip", "addr", "add", fmt.Sprintf("172.16.255.%d/%d", 251+place, bits), "dev", segment.Bridge); err != nil {
		return err
	}
	file := filepath.Join(k.files(node), "keepalived.conf")
	text := k.config(segment.Bridge, 100-place, bits)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // no secret
		return err
	}
	pid := filepath.Join(k.files(node), "keepalived.pid")
	return k.spawn(node, "keepalived", "--dont-fork", "--vrrp", "--use-file", file, "--pid", pid, "--vrrp_pid", pid+".vrrp")
}

// config is that of a node: version 3, as version 2 has whole seconds alone.
func (k *keepalived) config(bridge string, priority, bits int) string {
	return fmt.Sprintf(`global_defs {
  vrrp_version 3
}
vrrp_instance gateway {
  state BACKUP
  interface %s
  virtual_router_id 51
  priority %d
  advert_int %g
  virtual_ipaddress {
    %s/%d dev %s
  }
}
`, bridge, priority, k.advert.Seconds(), gatewayAddress, bits, bridge)
}
