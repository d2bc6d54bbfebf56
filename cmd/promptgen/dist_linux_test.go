package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"promptgen/internal/testkit/mpitest"
)

// job is a folder with data for a training of a few small steps.
type job struct {
	t   *testing.T
	dir string
}

func newJob(t *testing.T) *job {
	j := &job{t, t.TempDir()}
	words, ids := "[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n", ""
	for i := range 20 {
		words += fmt.Sprintf("%c\n", '一'+i)
	}
	for i := range 16 * 77 { // 9 steps of 8 windows and one of 5, twice
		ids += fmt.Sprintf("%d ", 5+(i*i/3+i)%20)
	}
	j.write("vocab.txt", words)
	j.write("data/tokenized_train_0.txt", ids)
	j.write("config.json", `{"n_ctx":16,"n_positions":16,"n_embd":16,"n_head":2,"n_layer":2,"dropout":0.1}`)
	return j
}

func (j *job) write(name, text string) {
	j.t.Helper()
	path := filepath.Join(j.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		j.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		j.t.Fatal(err)
	}
}

// train is the command line of the training into a folder.
func (j *job) train(out string, more ...string) []string {
	args := []string{"train", "--config", filepath.Join(j.dir, "config.json"), "--data", filepath.Join(j.dir, "data"),
		"--vocab", filepath.Join(j.dir, "vocab.txt"), "--out", filepath.Join(j.dir, out), "--epochs", "2",
		"--batch-size", "4", "--grad-accum", "2", "--shards", "8", "--threads", "1", "--lr", "1e-2", "--warmup-steps", "2"}
	return append(args, more...)
}

// run runs a command to its end, which it must reach in a minute.
func (j *job) run(args ...string) (code int, output string) {
	j.t.Helper()
	cmd, out := j.start(args...)
	return j.wait(cmd, out)
}

func (j *job) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	j.t.Helper()
	cmd, out := exec.Command(args[0], args[1:]...), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), "RUN_AS_PROGRAM=1")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		j.t.Fatal(err)
	}
	return cmd, out
}

// jobDeadline is far more than any of these jobs takes.
const jobDeadline = 2 * time.Minute

func (j *job) wait(cmd *exec.Cmd, out *bytes.Buffer) (int, string) {
	j.t.Helper()
	kill := time.AfterFunc(jobDeadline, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait() // its code is what counts
	if !kill.Stop() {
		j.t.Fatalf("%v did not end: %s", cmd.Args, out)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// weights of the finished training.
func (j *job) weights(out string) string {
	j.t.Helper()
	b, err := os.ReadFile(filepath.Join(j.dir, out, "final_model", "model.safetensors"))
	if err != nil {
		j.t.Fatal(err)
	}
	return string(b)
}

// One process, or 1, 2, 3 or 4 ranks of Open MPI, or 2 of MPICH: after 20 steps
// the weights are the same to the bit; so they are when other ranks go on.
func TestRanksDoNotChangeTheResult(t *testing.T) {
	j := newJob(t)
	mpitest.Run(t, mpitest.OpenMPI)
	self := os.Args[0]
	if code, out := j.run(append([]string{self}, j.train("one")...)...); code != 0 {
		t.Fatal(out)
	}
	want := j.weights("one")
	for _, c := range []struct {
		flavour string
		ranks   int
	}{{mpitest.OpenMPI, 1}, {mpitest.OpenMPI, 2}, {mpitest.OpenMPI, 3}, {mpitest.OpenMPI, 4}, {mpitest.MPICH, 2}} {
		t.Run(fmt.Sprint(c.flavour, " ", c.ranks), func(t *testing.T) {
			out := fmt.Sprintf("%s-%d", c.flavour[:2], c.ranks)
			args := append(mpitest.Run(t, c.flavour), "-n", strconv.Itoa(c.ranks), self)
			code, text := j.run(append(args, j.train(out, "--json")...)...)
			if code != 0 || strings.Count(text, "final_loss") != 1 || !strings.Contains(text, `"steps": 20`) {
				t.Fatalf("exit code %d: %s", code, text)
			}
			if j.weights(out) != want {
				t.Error("other weights")
			}
		})
	}

	// One epoch by 2 ranks, the other by 4: the state says how many shards.
	args := append(mpitest.Run(t, mpitest.OpenMPI), "-n", "2", self)
	if code, out := j.run(append(args, j.train("grown", "--epochs", "2", "--save-every", "3", "--dist-timeout", "1m")...)...); code != 0 {
		t.Fatal(out)
	}
	states, err := filepath.Glob(filepath.Join(j.dir, "grown", "state", "step-*"))
	if err != nil || len(states) < 2 {
		t.Fatal(states, err)
	}
	args = append(mpitest.Run(t, mpitest.OpenMPI), "-n", "4", self)
	if code, out := j.run(append(args, j.train("four", "--resume", states[0])...)...); code != 0 {
		t.Fatal(out)
	}
	if j.weights("four") != want {
		t.Error("other weights after going on with 4 ranks")
	}
}

// Ranks that train few of the weights, or adapters, exchange those alone, and
// come to the same bits as one process.
func TestRanksTrainFewWeights(t *testing.T) {
	j := newJob(t)
	self := os.Args[0]
	run := append(mpitest.Run(t, mpitest.OpenMPI), "-n", "3", self)
	if code, out := j.run(append([]string{self}, j.train("base", "--epochs", "1")...)...); code != 0 {
		t.Fatal(out)
	}
	base := filepath.Join(j.dir, "base", "final_model")
	for name, c := range map[string]struct {
		file  string
		flags []string
	}{
		"frozen":   {"model.safetensors", []string{"--freeze", "wte,wpe,h.0"}},
		"adapters": {"adapter_model.safetensors", []string{"--init-from", base, "--lora-rank", "3", "--lora-dropout", "0.2"}},
	} {
		var files []string
		for i, program := range [][]string{{self}, run} {
			out := fmt.Sprint(name, i)
			if code, text := j.run(append(program, j.train(out, c.flags...)...)...); code != 0 {
				t.Fatal(text)
			}
			b, err := os.ReadFile(filepath.Join(j.dir, out, "final_model", c.file))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, string(b))
		}
		if files[0] != files[1] {
			t.Errorf("%s: other weights by 3 ranks", name)
		}
	}
}

// Ranks that are not alike are refused before the first step, and the one line
// says in what they differ.
func TestUnlikeRanksAreRefused(t *testing.T) {
	j := newJob(t)
	run := mpitest.Run(t, mpitest.OpenMPI)
	j.write("other.json", `{"n_ctx":16,"n_positions":16,"n_embd":32,"n_head":2,"n_layer":2}`)
	j.write("data2/tokenized_train_0.txt", strings.Repeat("5 6 7 8 ", 308))
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	patched := filepath.Join(j.dir, "patched")
	if err := os.WriteFile(patched, append(binary, 0), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		program    string
		more       []string
	}{
		{"config", "config n_embd is 32 at rank 1", "", []string{"--config", filepath.Join(j.dir, "other.json")}},
		{"data", "the data (hash)", "", []string{"--data", filepath.Join(j.dir, "data2")}},
		{"program", "the program (SHA-256)", patched, nil},
		{"processor", "the processor is", "", []string{"PROMPTGEN_ISA=go"}},
		{"setting", "setting lr is 0.02 at rank 1", "", []string{"--lr", "0.02"}},
		{"a file that only one lacks", "rank 1", "", []string{"--data", filepath.Join(j.dir, "nothing")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			second := append([]string{os.Args[0]}, j.train("out")...)
			if c.program != "" {
				second[0] = c.program
			}
			if len(c.more) == 1 {
				second = append([]string{"env", c.more[0]}, second...)
			} else {
				second = append(second, c.more...)
			}
			args := append(append(run[:len(run):len(run)], "-n", "1", os.Args[0]), j.train("out")...)
			args = append(append(args, ":", "-n", "1"), second...)
			code, out := j.run(args...)
			if code != 2 || strings.Count(out, "promptgen: ") != 1 || !strings.Contains(out, c.want) {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(j.dir, "out", "state")); err == nil {
		t.Error("a state was written")
	}
}

// ranksOf finds the processes that train into a folder.
func ranksOf(t *testing.T, out string) map[int]int {
	t.Helper()
	ranks := map[int]int{} // rank to process
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(b), "\x00")
		if len(args) < 2 || args[1] != "train" || !strings.Contains(string(b), out) {
			continue
		}
		env, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err != nil {
			continue
		}
		for _, kv := range strings.Split(string(env), "\x00") {
			if n, ok := strings.CutPrefix(kv, "OMPI_COMM_WORLD_RANK="); ok {
				rank, _ := strconv.Atoi(n)
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				ranks[rank] = pid
			}
		}
	}
	return ranks
}

// stepsOf is the step of the last line in a run's metrics.
func stepsOf(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		return 0
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	var l struct{ Step int }
	json.Unmarshal(lines[len(lines)-1], &l) // a line cut short counts as none
	return l.Step
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(jobDeadline); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// long makes a training that is still under way when the test disturbs it.
func (j *job) long(out string, more ...string) []string {
	return j.train(out, append([]string{"--epochs", "60", "--save-every", "10", "--keep-epochs", "1"}, more...)...)
}

// A rank that is killed ends the job at once; launch starts it again from the
// last checkpoint, and the weights are those of a run that nothing disturbed.
func TestLaunchGoesOnAfterAKill(t *testing.T) {
	j := newJob(t)
	run := mpitest.Run(t, mpitest.OpenMPI)
	if code, out := j.run(append([]string{os.Args[0]}, j.long("calm")...)...); code != 0 {
		t.Fatal(out)
	}
	args := append([]string{os.Args[0], "launch", "--mpirun", run[0], "--np", "2", "--max-restarts", "2", "--"}, j.long("killed")...)
	cmd, out := j.start(args...)
	dir := filepath.Join(j.dir, "killed")
	until(t, "a checkpoint", func() bool { return stepsOf(dir) > 12 })
	victim := ranksOf(t, dir)[1]
	if victim == 0 {
		t.Fatal("rank 1 is not to be found")
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	until(t, "the end of the other rank", func() bool {
		left := ranksOf(t, dir)
		return len(left) == 0 || left[1] != 0 && left[1] != victim // or the next job is there already
	})
	t.Logf("the job ended within %v", time.Since(killed).Round(10*time.Millisecond))
	code, text := j.wait(cmd, out)
	if code != 0 || !strings.Contains(text, "restart 1 of 2") || !strings.Contains(text, "going on from step") {
		t.Fatalf("exit code %d: %s", code, text)
	}
	if j.weights("killed") != j.weights("calm") {
		t.Error("other weights than those of an undisturbed run")
	}
}

// A rank that stops answering is noticed by the other, which ends the job with
// the watchdog's code.
func TestWatchdogEndsAHangingJob(t *testing.T) {
	j := newJob(t)
	args := append(mpitest.Run(t, mpitest.OpenMPI), "-n", "2", os.Args[0])
	cmd, out := j.start(append(args, j.long("hung", "--dist-timeout", "5s")...)...)
	dir := filepath.Join(j.dir, "hung")
	until(t, "a step", func() bool { return stepsOf(dir) > 2 })
	if err := syscall.Kill(ranksOf(t, dir)[1], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	code, text := j.wait(cmd, out)
	if code != 75 || !strings.Contains(text, "for the other ranks") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

// An interrupt of launch reaches all ranks, which stop after the same step with
// everything saved.
func TestLaunchInterrupted(t *testing.T) {
	j := newJob(t)
	run := mpitest.Run(t, mpitest.OpenMPI)
	args := append([]string{os.Args[0], "launch", "--mpirun", run[0], "--np", "2", "--"}, j.long("stopped")...)
	cmd, out := j.start(args...)
	dir := filepath.Join(j.dir, "stopped")
	until(t, "a step", func() bool { return stepsOf(dir) > 2 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	// mpirun ends all ranks with the first that has ended: rank 0 may be too late to
	// say where its state is, and launch alone says that there is one.
	code, text := j.wait(cmd, out)
	if code != 130 || !strings.Contains(text, "the same command goes on from") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if code, text := j.run(append([]string{os.Args[0]}, j.long("stopped")...)...); code != 0 || !strings.Contains(text, "going on from step") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

// Without a launcher --dist mpi is refused; a library that is not the
// launcher's is noticed, and one that is not there is named.
func TestJoiningIsChecked(t *testing.T) {
	j := newJob(t)
	mpitest.Run(t, mpitest.OpenMPI)
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{"--dist", "mpi"}, "no MPI launcher"},
		{nil, []string{"--dist", "perhaps"}, "auto, off or mpi"},
		{[]string{"PMI_RANK=0", "PMI_SIZE=2", "PROMPTGEN_MPI_LIB=libnothing.so"}, nil, "libnothing.so"},
		{[]string{"PMI_RANK=0", "PMI_SIZE=3", "PROMPTGEN_MPI_LIB=libmpi.so.40"}, nil, "started 3 processes"},
	} {
		args := append(append([]string{"env"}, c.env...), os.Args[0])
		code, out := j.run(append(args, j.train("out", c.args...)...)...)
		if code != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%v %v: exit code %d: %s", c.env, c.args, code, out)
		}
	}
}
