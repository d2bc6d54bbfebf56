package tfevents_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"promptgen/internal/tfevents"
	"promptgen/internal/tfevents/tfread"
)

// What is written must come back through a reader that shares no code with the
// writer: lengths, checksums and every field.
func TestWriterAgainstAnIndependentReader(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_250_000)
	long := strings.Repeat("长", 100_000) // more than the buffer
	path := filepath.Join(t.TempDir(), "events.out.tfevents.1.host")
	w, err := tfevents.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w.Scalar(at, 1, "train/loss", 9.25)
	w.Scalar(at.Add(time.Second), 1<<40, "val/loss", math.Inf(1))
	w.Text(at, 3, "samples/春天", "春天来了 **x**")
	w.Text(at, 0, "", long)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tfread.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 || got[0].Version != "brain.Event:2" || math.Abs(got[0].WallTime-float64(time.Now().Unix())) > 1e6 {
		t.Fatalf("%d events, first %+v", len(got), got[0])
	}
	want := []tfread.Event{
		{WallTime: 1_700_000_000.25, Step: 1, Tag: "train/loss", Value: 9.25},
		{WallTime: 1_700_000_001.25, Step: 1 << 40, Tag: "val/loss", Value: float32(math.Inf(1))},
		{WallTime: 1_700_000_000.25, Step: 3, Tag: "samples/春天", Plugin: "text", Text: "春天来了 **x**"},
		{WallTime: 1_700_000_000.25, Plugin: "text", Text: long},
	}
	if !reflect.DeepEqual(got[1:], want) {
		t.Errorf("got  %+v\nwant %+v", got[1:4], want[:3])
	}
	for _, at := range []int{0, 9, 14, len(file) - 1} { // the reader must notice damage
		broken := bytes.Clone(file)
		broken[at] ^= 1
		if _, err := tfread.Read(broken); err == nil {
			t.Errorf("byte %d changed, and nothing was noticed", at)
		}
	}
}

// TensorBoard takes a file for its own by the version in the first record.
func TestFirstRecordIsWhatTensorBoardLooksFor(t *testing.T) {
	var b bytes.Buffer
	if err := tfevents.NewWriter(&b, time.Unix(0, 0)).Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b.Bytes(), []byte("\x1a\x0dbrain.Event:2")) || b.Bytes()[0] != byte(b.Len()-16) {
		t.Errorf("% x", b.Bytes())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// A full disk must be told, once, and not end in a panic.
func TestWriteErrorIsKept(t *testing.T) {
	w := tfevents.NewWriter(full{}, time.Unix(0, 0))
	for range 10_000 {
		w.Scalar(time.Unix(1, 0), 1, "x", 1)
	}
	if err := w.Close(); err == nil || err.Error() != "disk full" {
		t.Errorf("%v", err)
	}
}
