package splitmix

import "testing"

// The first numbers of the seed 1234567, as Vigna's splitmix64.c gives them: what
// was trained with them must come out again.
func TestKnownNumbers(t *testing.T) {
	s := Source(1234567)
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := s.Next(); got != want {
			t.Errorf("number %d is %d, want %d", i, got, want)
		}
	}
}

// Below keeps within its bound and reaches all of it.
func TestBelow(t *testing.T) {
	var s Source
	seen := map[uint64]int{}
	for range 6000 {
		v := s.Below(6)
		if v >= 6 {
			t.Fatalf("%d of 6", v)
		}
		seen[v]++
	}
	for v := range uint64(6) {
		if seen[v] < 850 || seen[v] > 1150 {
			t.Errorf("%d came %d times of 6000", v, seen[v])
		}
	}
}
