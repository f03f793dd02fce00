package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// RFC 4271 §4.1.
const (
	headerLen     = 19
	maxMessageLen = 4096
)

// Message types (RFC 4271 §4.1, RFC 2918).
const (
	typeOpen         = 1
	typeUpdate       = 2
	typeNotification = 3
	typeKeepalive    = 4
	typeRouteRefresh = 5
)

// Notification codes and subcodes that this speaker sends or tells apart
// (RFC 4271 §4.5, RFC 4486, RFC 8538 §3).
const (
	errHeader               = 1
	errHeaderLength         = 2
	errOpen                 = 2
	errOpenBadPeerAS        = 2
	errOpenBadID            = 3
	errOpenUnacceptableHold = 6
	errOpenUnsupportedCap   = 7
	errUpdate               = 3
	errUpdateMalformedAttrs = 1
	errHoldTimer            = 4
	errFSM                  = 5
	errCease                = 6
	ceaseMaxPrefixes        = 1
	ceaseShutdown           = 2
	ceaseDeconfigured       = 3
	ceaseReset              = 4
	ceaseRejected           = 5
	ceaseReconfigured       = 6
	ceaseCollision          = 7
	ceaseHardReset          = 9
)

// notification is a NOTIFICATION message: an error that ends a session,
// whichever side found it.
type notification struct {
	code, subcode uint8
	data          []byte
	received      bool
	text          string // what we say of it; empty: the code's own name
}

func (n *notification) Error() string {
	text := n.text
	if text == "" {
		text = notificationName(n.code, n.subcode)
	}
	if n.received {
		return "the peer ended the session: " + text
	}
	return text
}

func notificationName(code, subcode uint8) string {
	switch code {
	case errHeader:
		return "message header error"
	case errOpen:
		switch subcode {
		case errOpenBadPeerAS:
			return "it does not accept our AS"
		case errOpenBadID:
			return "it does not accept our router-id: two nodes with one loopback?"
		case errOpenUnsupportedCap:
			return "it lacks a capability or refuses one of ours"
		case errOpenUnacceptableHold:
			return "it does not accept our hold time"
		}
		return "it does not accept our OPEN"
	case errUpdate:
		return "malformed UPDATE"
	case errHoldTimer:
		return "hold timer expired"
	case errFSM:
		return "unexpected message"
	case errCease:
		switch subcode {
		case ceaseMaxPrefixes:
			return "too many prefixes"
		case ceaseShutdown:
			return "administratively shut down"
		case ceaseDeconfigured:
			return "this peer is no longer configured there"
		case ceaseReconfigured:
			return "its configuration has changed"
		case ceaseReset:
			return "administratively reset"
		case ceaseRejected:
			return "connection rejected"
		case ceaseCollision:
			return "connection collision"
		case ceaseHardReset:
			return "reset"
		}
		return "cease"
	}
	return fmt.Sprintf("error %d/%d", code, subcode)
}

// readMessage reads one message into buf, which must hold maxMessageLen
// bytes, and returns its type and body. A malformed header is a
// *notification; anything else is what the connection said.
func readMessage(r io.Reader, buf []byte) (uint8, []byte, error) {
	header := buf[:headerLen]
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, nil, err
	}
	for _, b := range header[:16] {
		if b != 0xff {
			return 0, nil, &notification{code: errHeader, subcode: 1, text: "what answers does not speak BGP: bad marker"}
		}
	}
	length, kind := int(binary.BigEndian.Uint16(header[16:])), header[18]
	if length < headerLen || length > maxMessageLen {
		return 0, nil, &notification{code: errHeader, subcode: errHeaderLength, data: header[16:18:18], text: fmt.Sprintf("message of impossible length %d", length)}
	}
	body := buf[headerLen:length]
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, body, nil
}

// beginMessage appends a header whose length endMessage fills in.
func beginMessage(b []byte, kind uint8) []byte {
	for range 16 {
		b = append(b, 0xff)
	}
	return append(b, 0, 0, kind)
}

// endMessage completes the message that begins at start and ends with b.
func endMessage(b []byte, start int) []byte {
	binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	return b
}

func encodeKeepalive() []byte {
	return endMessage(beginMessage(nil, typeKeepalive), 0)
}

func encodeNotification(n *notification) []byte {
	b := beginMessage(nil, typeNotification)
	b = append(b, n.code, n.subcode)
	return endMessage(append(b, n.data...), 0)
}

func decodeNotification(body []byte) *notification {
	if len(body) < 2 {
		return &notification{received: true, text: "it sent a NOTIFICATION without a code"}
	}
	return &notification{code: body[0], subcode: body[1], data: body[2:], received: true}
}
