package arena

import "testing"

// What is cut from an arena is zero, aligned, apart from its neighbours, and
// never more than there is.
func TestArena(t *testing.T) {
	a, err := New(5 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if got := len(a.mem); got != 6<<20 {
		t.Errorf("%d bytes for 5 MiB", got)
	}
	f, h := a.Floats(1000), a.Halves(3)
	f[999] = 1
	h[0] = 7
	a.Touch()
	if f[0] != 0 || f[999] != 1 || h[0] != 7 || len(f) != 1000 || len(h) != 3 {
		t.Error("touching changes what is there")
	}
	if a.Floats(2<<20) != nil || a.Bytes(-1) != nil {
		t.Error("more was given than there is")
	}
	if _, err := New(-1); err == nil {
		t.Error("a negative size was taken")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error("closing twice:", err)
	}
}
