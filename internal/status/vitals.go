package status

// Vitals is all that metrics are made of, read at about one moment.
type Vitals struct {
	Status   Snapshot
	Segments []Segment
	Gateways []Gateway
	Guard    Guard
	// Kernel counts, by part of what the kernel is to hold, the operations that
	// it refused when they were last tried.
	Kernel map[string]int
	DHCP   DHCP
	Store  *Store // nil: the fabric has none, or nothing is known of it yet
}

// DHCP is how it stands with guests' addresses.
type DHCP struct {
	Pools    []Pool
	Waiting  int               // clients that are being served
	Pending  int               // leases that the store has not been told of yet
	Messages map[string]uint64 // from and to guests since the agent's start, by kind
	Failures map[string]uint64 // what kept guests from an address, by kind
}

// Pool is how much of a segment's ranges is in use.
type Pool struct {
	Segment    string
	Size, Used int // addresses
}

// Store is how the store is, as seen from this node.
type Store struct {
	Majority bool
	Members  []StoreMember
}

// StoreMember is one of the store's members.
type StoreMember struct {
	Name    string
	Answers bool
	Leader  bool
	Bytes   int64 // of its database
}
