package bfd

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var cmpPacket = cmp.AllowUnexported(packet{})

// golden is a packet as a capture shows it: up, poll, C, multiplier 3, 100 ms.
const golden = "20e803180000000100000002000186a0000186a000000000"

func TestPacketOnTheWire(t *testing.T) {
	want := packet{
		state: up, poll: true, independent: true, multiplier: 3, mine: 1, yours: 2,
		desiredTx: 100 * time.Millisecond, requiredRx: 100 * time.Millisecond,
	}
	var b [packetLength]byte
	want.put(&b)
	if got := hex.EncodeToString(b[:]); got != golden {
		t.Errorf("put = %s, want %s", got, golden)
	}
	got, err := parsePacket(b[:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpPacket); diff != "" {
		t.Error(diff)
	}
}

func TestParsePacketRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"empty":                        {func([]byte) []byte { return nil }, errShort},
		"one byte short":               {func(b []byte) []byte { return b[:23] }, errShort},
		"version 0":                    {func(b []byte) []byte { b[0] = 0; return b }, errVersion},
		"version 2":                    {func(b []byte) []byte { b[0] = 2 << 5; return b }, errVersion},
		"length less than header":      {func(b []byte) []byte { b[3] = 23; return b }, errLength},
		"length more than payload":     {func(b []byte) []byte { b[3] = 25; return b }, errLength},
		"authenticated":                {func(b []byte) []byte { b[1] |= flagAuth; return b }, errAuth},
		"multipoint":                   {func(b []byte) []byte { b[1] |= flagMultipoint; return b }, errMultipoint},
		"multiplier 0":                 {func(b []byte) []byte { b[2] = 0; return b }, errMultiplier},
		"my discriminator 0":           {func(b []byte) []byte { clear(b[4:8]); return b }, errDiscriminator},
		"up with your discriminator 0": {func(b []byte) []byte { clear(b[8:12]); return b }, errDiscriminator},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := hex.DecodeString(golden)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parsePacket(test.change(b)); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

func FuzzParsePacket(f *testing.F) {
	b, err := hex.DecodeString(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(b, 1, 2, 3))
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		if p.multiplier == 0 || p.mine == 0 {
			t.Fatalf("accepted %+v", p)
		}
		var again [packetLength]byte
		p.put(&again)
		q, err := parsePacket(again[:])
		if err != nil {
			t.Fatalf("what was accepted is refused when sent on: %v", err)
		}
		if diff := cmp.Diff(p, q, cmpPacket); diff != "" {
			t.Fatal(diff)
		}
	})
}
