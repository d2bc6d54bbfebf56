package train_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train"
)

// The number of shards fixes the result; the cut into micro-batches, a stop and
// the threads do not change it. A short last batch is among the steps.
func TestShardsFixTheResult(t *testing.T) {
	o := testOptions(t, 16*21) // 2 steps of 8 and one of 5 an epoch
	o.BatchSize, o.GradAccum, o.Shards = 4, 2, 6
	mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	for _, c := range []struct{ batch, accum, threads, stop int }{{1, 8, 1, 0}, {8, 1, 2, 0}, {2, 4, 2, 3}} {
		again := o
		again.Out = filepath.Join(t.TempDir(), "again")
		again.BatchSize, again.GradAccum, again.Threads = c.batch, c.accum, c.threads
		if c.stop > 0 {
			ctx, cancel := context.WithCancel(context.Background())
			rec := recorder{onStep: func(s train.StepInfo) {
				if s.Step == c.stop {
					cancel()
				}
			}}
			if _, err := train.Run(ctx, again, &rec); fault.Code(err) != fault.CodeInterrupted {
				t.Fatal(err)
			}
			again.Shards = 0 // as the state says
		}
		mustRun(t, again, train.Silent{})
		if !bytes.Equal(weights(t, again.Out), want) {
			t.Errorf("%+v: other weights", c)
		}
	}

	o.Shards, o.Resume, o.Epochs = 3, "auto", 3
	if _, err := train.Run(context.Background(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(fmt.Sprint(err), "shards") {
		t.Errorf("going on with another number of shards: %v", err)
	}
	o.Shards = 9
	if _, err := train.Run(context.Background(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(fmt.Sprint(err), "effective batch") {
		t.Errorf("more shards than sequences: %v", err)
	}
}
