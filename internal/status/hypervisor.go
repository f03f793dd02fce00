package status

import "time"

// Hypervisor is what LXD or Incus says of its instances on the node. It is the
// body of GET /v1/hypervisor.
type Hypervisor struct {
	// Contact is off, absent (there is no socket), away (nobody answers as it
	// should; the rest is what was said last) or connected.
	Contact string `json:"contact"`
	Socket  string `json:"socket,omitempty"`
	Product string `json:"product,omitempty"` // LXD or Incus
	Version string `json:"version,omitempty"`
	Member  string `json:"member,omitempty"`  // its name in its cluster
	Trouble string `json:"trouble,omitempty"` // of one that is away
	// ClusterTrouble is why what is known of instances on other members may be out of date.
	ClusterTrouble string     `json:"clusterTrouble,omitempty"`
	Since          *time.Time `json:"since,omitempty"` // of contact
	Instances      []Instance `json:"instances"`
}

// Instance is a container or virtual machine.
type Instance struct {
	Name    string `json:"name"`
	Project string `json:"project"`
	Kind    string `json:"kind"`  // container or virtual-machine
	State   string `json:"state"` // in the hypervisor's words
	NICs    []NIC  `json:"nics"`
}

// NIC is a network interface of an instance.
type NIC struct {
	Device  string   `json:"device"` // its name in the instance's configuration
	MAC     string   `json:"mac"`
	Port    string   `json:"port,omitempty"` // of the bridge, of one that is plugged in
	Bridge  string   `json:"bridge"`
	Segment string   `json:"segment,omitempty"` // whose bridge that is
	IPs     []string `json:"ips"`               // that are known to be its own
}
