package half

import (
	"math"
	"testing"
)

// formats are both, with the largest finite number of each.
var formats = []struct {
	name string
	from func(uint16) float32
	to   func(float32) uint16
	last uint16
}{{"fp16", FromFP16, ToFP16, 0x7bff}, {"bf16", FromBF16, ToBF16, 0x7f7f}}

// Every 16-bit number widens and rounds back to itself.
func TestExact(t *testing.T) {
	for _, k := range formats {
		for h := range 1 << 16 {
			f := k.from(uint16(h))
			if math.IsNaN(float64(f)) {
				if g := k.from(k.to(f)); !math.IsNaN(float64(g)) {
					t.Fatalf("%s %04x: NaN became %v", k.name, h, g)
				}
			} else if g := k.to(f); g != uint16(h) {
				t.Fatalf("%s %04x is %v and went back to %04x", k.name, h, f, g)
			}
		}
	}
}

// What lies between two 16-bit numbers goes to the nearer one, and to the even
// one from the middle.
func TestNearestEven(t *testing.T) {
	for _, k := range formats {
		for h := range k.last {
			lo, hi := float64(k.from(h)), float64(k.from(h+1))
			mid := float32((lo + hi) / 2)
			even := h + h&1
			if got := k.to(mid); float64(mid) == (lo+hi)/2 && got != even {
				t.Fatalf("%s: %v, between %04x and %04x, became %04x", k.name, mid, h, h+1, got)
			}
			if got := k.to(math.Nextafter32(mid, float32(lo))); got != h && float64(mid) > lo {
				t.Fatalf("%s: below the middle of %04x and %04x became %04x", k.name, h, h+1, got)
			}
			if got := k.to(math.Nextafter32(mid, float32(hi))); got != h+1 && float64(mid) < hi {
				t.Fatalf("%s: above the middle of %04x and %04x became %04x", k.name, h, h+1, got)
			}
		}
	}
}

// Beyond the largest number, from the middle to the next that there would be on,
// is infinity; a NaN stays one whatever bits it has.
func TestEnds(t *testing.T) {
	for _, k := range formats {
		last := float64(k.from(k.last))
		half := (last - float64(k.from(k.last-1))) / 2
		inf := k.to(float32(math.Inf(1)))
		if got := k.to(math.Nextafter32(float32(last+half), 0)); got != k.last {
			t.Errorf("%s: below the middle behind the largest became %04x", k.name, got)
		}
		if got := k.to(float32(last + half)); got != inf {
			t.Errorf("%s: the middle behind the largest became %04x", k.name, got)
		}
		for _, bits := range []uint32{0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7fc00000} {
			if got := k.from(k.to(math.Float32frombits(bits))); got == got {
				t.Errorf("%s: NaN %08x became %v", k.name, bits, got)
			}
		}
	}
}
