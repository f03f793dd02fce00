package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/guest"
	"frond/internal/status"
)

func (p program) lxdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "lxd",
		Short:   "See what LXD or Incus says of its guests, and have them land on a segment",
		GroupID: groupAsk,
	}
	cmd.AddCommand(p.lxdStatusCommand(), lxdSetupCommand())
	return cmd
}

func (p program) lxdStatusCommand() *cobra.Command {
	ask := func(ctx context.Context, c *api.Client) (status.Hypervisor, error) { return c.Hypervisor(ctx) }
	cmd := question[status.Hypervisor]{ask: ask, render: renderHypervisor, verdict: hypervisorVerdict}.command(p, "status",
		"Show the instances of LXD or Incus on the node, and where they are plugged in", "")
	cmd.GroupID = ""
	return cmd
}

func hypervisorVerdict(h status.Hypervisor) error {
	if h.Contact == string(guest.Away) {
		return errUnhealthy
	}
	return nil
}

func renderHypervisor(h status.Hypervisor, v view) string {
	text := contactText(h, v) + "\n"
	if h.ClusterTrouble != "" {
		text += v.paint(printable("it does not tell of instances on other members: "+h.ClusterTrouble), yellow) + "\n"
	}
	if len(h.Instances) == 0 {
		return text
	}
	t := table{columns: []column{
		{name: "INSTANCE"}, {name: "PROJECT"}, {name: "STATE"}, {name: "NIC"}, {name: "MAC"}, {name: "PORT"}, {name: "SEGMENT"}, {name: "IPS"},
	}}
	for _, i := range h.Instances {
		if len(i.NICs) == 0 {
			t.add(cell{text: i.Name}, cell{text: i.Project}, cell{text: i.State}, cell{text: "none"}, cell{}, cell{}, cell{}, cell{})
		}
		for _, nic := range i.NICs {
			t.add(cell{text: i.Name}, cell{text: i.Project}, cell{text: i.State}, cell{text: nic.Device}, cell{text: nic.MAC}, cell{text: nic.Port},
				nicSegment(nic), cell{text: strings.Join(nic.IPs, " ")})
		}
	}
	return text + "\n" + t.render(v)
}

// nicSegment is the segment of an interface, or the bridge that is none's.
func nicSegment(nic status.NIC) cell {
	switch {
	case nic.Segment != "":
		return cell{text: nic.Segment}
	case nic.Bridge != "":
		return cell{"none: bridge " + nic.Bridge, yellow}
	}
	return cell{"none", yellow}
}

func contactText(h status.Hypervisor, v view) string {
	who := strings.TrimSpace(h.Product + " " + h.Version)
	if who == "" {
		who = "LXD or Incus"
	}
	if h.Member != "" {
		who += ", member " + h.Member
	}
	since := ""
	if h.Since != nil {
		since = " for " + v.since(*h.Since)
	}
	switch guest.Contact(h.Contact) {
	case guest.Off:
		return "the document wants no hypervisor to be asked (guests: {lxd: off})"
	case guest.Absent:
		return "neither LXD nor Incus has a socket on this node"
	case guest.Away:
		return v.paint(printable(fmt.Sprintf("%s at %s does not answer as it should%s: %s", who, h.Socket, since, h.Trouble)), yellow)
	}
	return printable(fmt.Sprintf("%s at %s, connected%s", who, h.Socket, since))
}
