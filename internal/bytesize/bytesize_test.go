package bytesize

import "testing"

// Sizes as people read them.
func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 29: "1.50 GiB"} {
		if got := Format(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// Sizes are read as the commands' contract writes them; nonsense is refused and
// nothing overflows.
func TestParse(t *testing.T) {
	for s, want := range map[string]int64{
		"2GiB": 2 << 30, "512MiB": 512 << 20, "1.5G": 3 << 29, "1.5 GiB": 3 << 29, "1048576": 1 << 20, "77b": 77, "4k": 4096, "7EiB": 7 << 60,
		"0": 0, "4": 0, "1048575": 0, "-1GiB": 0, "9EiB": 0, "": 0, "GiB": 0, "1XB": 0, "nan": 0, "inf": 0, "1e400": 0, "0.1": 0,
	} {
		if got, ok := Parse(s); got != want || ok != (want > 0) {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
}
