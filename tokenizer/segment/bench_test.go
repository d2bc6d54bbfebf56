package segment

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// shared reads what is kept beside the checkout and may not be part of it.
func shared(t testing.TB, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "..", "shared"}, elem...)...))
	if err != nil {
		t.Skipf("test data that is not part of the project: %v", err)
	}
	return string(b)
}

func newDictionary(t testing.TB, o Options) *Dictionary {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// BenchmarkLoad is the time that the embedded list takes until the first word
// can be cut, and the memory that stays.
func BenchmarkLoad(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var last base
	for b.Loop() {
		var err error
		if last, err = load(packedList, 0); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MB-kept")
	runtime.KeepAlive(last)
}

// BenchmarkAppendWords is the speed on one core, in bytes of UTF-8.
func BenchmarkAppendWords(b *testing.B) {
	text := shared(b, "corpora", "modern_20m.train.txt")[:2<<20]
	d := newDictionary(b, Options{})
	var words []string
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		words = d.AppendWords(words[:0], text)
	}
}
