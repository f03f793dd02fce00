package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"frond/internal/status"
)

// forwardingQuery is a destination as the query of GET /v1/forwarding.
func forwardingQuery(to status.Destination) string {
	query := url.Values{}
	for name, value := range map[string]string{"address": to.Address, "segment": to.Segment, "mac": to.MAC} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query.Encode()
}

// parseDestination reads what forwardingQuery has written.
func parseDestination(query url.Values) (status.Destination, error) {
	to := status.Destination{Address: query.Get("address"), Segment: query.Get("segment"), MAC: query.Get("mac")}
	switch {
	case to.MAC != "" && (to.Segment == "" || to.Address != ""), to.MAC == "" && to.Address == "":
		return to, fmt.Errorf("a destination is an address, a segment and a MAC, or an address and the segment of the guest that sends to it")
	case to.MAC != "":
		mac, err := net.ParseMAC(to.MAC)
		if err != nil || len(mac) != 6 {
			return to, fmt.Errorf("MAC %q is none: write it as 02:00:00:00:00:01", to.MAC)
		}
		to.MAC = mac.String()
		return to, nil
	}
	address, err := netip.ParseAddr(to.Address)
	if err != nil || address.Zone() != "" || address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() {
		return to, fmt.Errorf("address %q is none that a packet is routed to: write it as 10.0.200.1", to.Address)
	}
	to.Address = address.Unmap().String()
	return to, nil
}

func (h handler) nodes(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, Nodes{orEmpty(h.backend.Nodes())})
}

func (h handler) forwarding(w http.ResponseWriter, r *http.Request) {
	to, err := parseDestination(r.URL.Query())
	if err != nil {
		h.fail(w, http.StatusBadRequest, err)
		return
	}
	answer, err := h.backend.Forwarding(r.Context(), to)
	if err != nil {
		h.fail(w, http.StatusInternalServerError, err)
		return
	}
	answer.Legs = orEmpty(answer.Legs)
	h.answer(w, http.StatusOK, answer)
}
