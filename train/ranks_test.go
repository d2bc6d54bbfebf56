package train_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/testkit/mpitest"
	"promptgen/train"
	"promptgen/train/dist"
	"promptgen/train/runlog"
)

// Ranks that are not told a number of shards take the default, which the memory
// plan must know before the first step; what they trained is repeated by one
// process. A number that is too small for them is refused with what to give,
// before the states of a former run are removed.
func TestRanksWithoutShards(t *testing.T) {
	if dir := os.Getenv("TRAIN_IN_RANKS"); dir != "" {
		o := testOptions(t, 1)
		o.Data, o.Vocab, o.Out = dir, filepath.Join(dir, "vocab.txt"), filepath.Join(dir, "out")
		o.Threads, o.BatchSize, o.Resume = 1, 4, "never"
		fmt.Sscan(os.Getenv("TRAIN_SHARDS"), &o.Shards)
		_, err := train.Run(t.Context(), o, train.Silent{})
		if errors.Is(err, dist.ErrElsewhere) {
			time.Sleep(time.Second) // mpirun kills the others once one has failed
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(fault.Code(err))
	}
	run := mpitest.Run(t, mpitest.OpenMPI)
	o := testOptions(t, 16*20)
	out := filepath.Join(o.Data, "out")
	job := func(ranks int, shards string) (int, string) {
		cmd := exec.Command(run[0], append(run[1:len(run):len(run)], "-n", fmt.Sprint(ranks), os.Args[0], "-test.run=^TestRanksWithoutShards$")...)
		cmd.Env = append(os.Environ(), "TRAIN_IN_RANKS="+o.Data, "TRAIN_SHARDS="+shards)
		text, _ := cmd.CombinedOutput() // its code is what counts
		return cmd.ProcessState.ExitCode(), string(text)
	}
	for _, ranks := range []int{2, 3} {
		if code, text := job(ranks, "0"); code != fault.CodeDone {
			t.Fatalf("%d ranks: exit code %d: %s", ranks, code, text)
		}
	}
	again, err := train.FromReport(filepath.Join(out, runlog.RunName))
	if err != nil {
		t.Fatal(err)
	}
	again.Out = filepath.Join(t.TempDir(), "again")
	mustRun(t, again, train.Silent{})
	if !bytes.Equal(weights(t, again.Out), weights(t, out)) {
		t.Error("one process that repeats the ranks' run has other weights")
	}
	before := stateOf(t, out)
	for shards, want := range map[string]string{"1": "5 ranks cannot share 1 shards", "0": "5 ranks cannot share 4 shards"} {
		code, text := job(5, shards)
		if code != fault.CodeUsage || !strings.Contains(text, want) {
			t.Errorf("--shards %s: exit code %d: %s", shards, code, text)
		}
	}
	if !bytes.Equal(stateOf(t, out), before) {
		t.Error("a job that was refused changed the states")
	}
}
