// Package splitmix is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), written
// out: orders and masks that changed with a library's release would break
// resumed runs.
package splitmix

// Gamma is what a generator's state grows by from number to number.
const Gamma = 0x9e3779b97f4a7c15

// Mix is the generator's output for a state, a good hash of 64 bits: every bit of
// z changes every bit of the result with probability one half.
func Mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Source is a stream of numbers; its value is the state.
type Source uint64

// Next is the next number.
func (s *Source) Next() uint64 {
	*s += Gamma
	return Mix(uint64(*s))
}

// Below is uniform over [0, n): values that would favour the small are redrawn.
func (s *Source) Below(n uint64) uint64 {
	limit := -n % n // 2^64 mod n
	for {
		if v := s.Next(); v >= limit {
			return v % n
		}
	}
}
