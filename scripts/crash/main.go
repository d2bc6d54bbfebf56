//go:build linux && amd64

// Command crash proves that no crash breaks a training: it ends trainings that
// save every step, at random moments and between any two system calls, lets
// the disk be full from any call on, and each time checks that the next start
// goes on from a whole state no older than the last completed one, that nothing
// is left lying about, and that the run ends with the weights of an undisturbed
// one.
//
//	go run ./scripts/crash [-kills 200] [-calls] [-full] [-every 1]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"promptgen/internal/tracee"
)

func main() {
	kills := flag.Int("kills", 200, "kills at random moments")
	calls := flag.Bool("calls", true, "end a training before each of its calls that change files")
	full := flag.Bool("full", true, "let the disk be full from each of these calls on")
	every := flag.Int("every", 1, "try only every so many of the calls")
	flag.Parse()
	if err := run(*kills, *calls, *full, *every); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// bench is a folder with the program, some tokens, and an undisturbed run.
type bench struct {
	dir, program string
	batch        string
	want         []byte // the weights of the undisturbed run
}

func run(kills int, calls, full bool, every int) error {
	dir, err := os.MkdirTemp("", "promptgen-crash-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, program: filepath.Join(dir, "promptgen")}
	if err := b.prepare(); err != nil {
		return err
	}
	if kills > 0 {
		if err := b.random(kills); err != nil {
			return err
		}
	}
	if calls {
		if err := b.everyCall("killed before each call", every, tracee.Kill); err != nil {
			return err
		}
	}
	if full {
		return b.everyCall("disk full from each call on", every, tracee.Verdict(syscall.ENOSPC))
	}
	return nil
}

// prepare builds the program, makes tokens, and trains once undisturbed.
func (b *bench) prepare() error {
	var text strings.Builder
	r := rand.New(rand.NewPCG(1, 1))
	for range 4000 {
		text.WriteRune(rune('一' + r.IntN(3)*r.IntN(40)))
		if r.IntN(60) == 0 {
			text.WriteString("\n\n")
		}
	}
	files := map[string]string{
		"corpus.txt":  text.String(),
		"config.json": `{"n_ctx": 32, "n_positions": 32, "n_embd": 64, "n_head": 2, "n_layer": 2}`,
	}
	for name, s := range files {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(s), 0o644); err != nil {
			return err
		}
	}
	if out, err := exec.Command("go", "build", "-o", b.program, "./cmd/promptgen").CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w: %s", err, out)
	}
	for _, args := range [][]string{
		{"vocab", "--corpus", "corpus.txt", "--level", "char", "--out", "vocab.txt", "--quiet"},
		{"tokenize", "--corpus", "corpus.txt", "--vocab", "vocab.txt", "--level", "char", "--out", "tokens", "--val-fraction", "0.1", "--quiet"},
	} {
		if out, err := b.command(args).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return nil
}

// straight trains once undisturbed, with batches of the given size: the
// smaller, the more steps.
func (b *bench) straight(batch string) (took time.Duration, err error) {
	b.batch = batch
	start, out := time.Now(), "straight"
	if err := os.RemoveAll(filepath.Join(b.dir, out)); err != nil {
		return 0, err
	}
	if text, err := b.command(b.train(out)).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	took = time.Since(start)
	b.want, err = b.weights(out)
	return took, err
}

func (b *bench) train(out string) []string {
	return []string{"train", "--config", "config.json", "--data", "tokens", "--out", out, "--epochs", "2",
		"--batch-size", b.batch, "--save-every", "1", "--eval-every", "5", "--keep-epochs", "1", "--seed", "5"}
}

func (b *bench) command(args []string) *exec.Cmd {
	c := exec.Command(b.program, args...)
	c.Dir = b.dir
	return c
}

func (b *bench) weights(out string) ([]byte, error) {
	return os.ReadFile(filepath.Join(b.dir, out, "final_model", "model.safetensors"))
}

// newest is the step of the newest state that stands in out, 0 without one.
func (b *bench) newest(out string) (step int) {
	states, _ := filepath.Glob(filepath.Join(b.dir, out, "state", "step-*"))
	for _, s := range states {
		n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(s), "step-"))
		step = max(step, n)
	}
	return step
}

// hidden lists what lies under hidden names in out and its states.
func (b *bench) hidden(out string) []string {
	a, _ := filepath.Glob(filepath.Join(b.dir, out, ".*"))
	s, _ := filepath.Glob(filepath.Join(b.dir, out, "state", ".*"))
	return append(a, s...)
}

// inSave tells that a half-built folder or file lies there.
func (b *bench) inSave(out string) bool {
	for _, path := range b.hidden(out) {
		if strings.Contains(filepath.Base(path), ".tmp-") {
			return true
		}
	}
	return false
}

var (
	goingOn  = regexp.MustCompile(`going on from step (\d+)`)
	finished = regexp.MustCompile(`is finished \((\d+) steps`)
)

// resumedAt is the step that a run said it went on from.
func resumedAt(log []byte) int {
	for _, re := range []*regexp.Regexp{finished, goingOn} {
		if m := re.FindSubmatch(log); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			return n
		}
	}
	return 0
}

// random kills trainings at random moments until there were enough kills; a
// training that ends must have the right weights, and is followed by a new one.
func (b *bench) random(kills int) error {
	whole, err := b.straight("8")
	if err != nil {
		return err
	}
	inside, ended, most := 0, 0, 0
	last := 0 // newest completed state before the run at hand
	for done := 0; done < kills; {
		var log bytes.Buffer
		c := b.command(b.train("random"))
		c.Stderr = &log
		if err := c.Start(); err != nil {
			return err
		}
		exited := make(chan error, 1)
		go func() { exited <- c.Wait() }()
		killed := false
		select {
		case err := <-exited:
			exited <- err
		case <-time.After(time.Duration(rand.Float64() * float64(whole) / 3)):
			killed = c.Process.Kill() == nil
		}
		err := <-exited
		if from := resumedAt(log.Bytes()); from < last && log.Len() > 0 && strings.Contains(log.String(), "msg=train") {
			return fmt.Errorf("went on from step %d, and step %d was saved: %s", from, last, log.String())
		}
		if err == nil {
			if err := b.check("random"); err != nil {
				return err
			}
			ended++
			last = 0
			if err := os.RemoveAll(filepath.Join(b.dir, "random")); err != nil {
				return err
			}
			continue
		}
		var exit *exec.ExitError
		if !killed || !errors.As(err, &exit) || exit.ExitCode() != -1 {
			return fmt.Errorf("a start after %d kills failed: %w: %s", done, err, log.String())
		}
		done++
		if b.inSave("random") {
			inside++
		}
		most = max(most, len(b.hidden("random")))
		last = b.newest("random")
	}
	if out, err := b.command(b.train("random")).CombinedOutput(); err != nil {
		return fmt.Errorf("the last start: %w: %s", err, out)
	}
	if err := b.check("random"); err != nil {
		return err
	}
	fmt.Printf("killed at random: %d times, %d of them inside a save; %d trainings ended with the right weights; at most %d leftovers at a time\n", kills, inside, ended+1, most)
	if inside < kills/4 {
		return fmt.Errorf("only %d of %d kills fell into a save: too few to prove anything", inside, kills)
	}
	return nil
}

// check compares an ended run with the undisturbed one.
func (b *bench) check(out string) error {
	got, err := b.weights(out)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, b.want) {
		return fmt.Errorf("%s: ended with other weights than the undisturbed run", out)
	}
	if left := b.hidden(out); len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	states, _ := filepath.Glob(filepath.Join(b.dir, out, "state", "step-*"))
	if len(states) != 2 {
		return fmt.Errorf("the states that are kept: %v", states)
	}
	return nil
}

// everyCall runs one training for each call that changes files, and lets that
// call have the verdict; an error holds for all later calls that take space.
func (b *bench) everyCall(what string, every int, v tracee.Verdict) error {
	if _, err := b.straight("40"); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(b.dir, "count")); err != nil {
		return err
	}
	total, err := b.traced("count", func(tracee.Call) tracee.Verdict { return tracee.Pass }, nil)
	if err != nil {
		return err
	}
	tried := 0
	for n := 1; n <= total; n += every {
		out := "call"
		if err := os.RemoveAll(filepath.Join(b.dir, out)); err != nil {
			return err
		}
		last := 0
		var log bytes.Buffer
		_, err := b.traced(out, func(c tracee.Call) tracee.Verdict {
			if c.N == n {
				last = b.newest(out)
			}
			switch {
			case c.N < n, v != tracee.Kill && !takesSpace(c.Name):
				return tracee.Pass
			}
			return v
		}, &log)
		if err != nil {
			return fmt.Errorf("%s, call %d: %w", what, n, err)
		}
		if v != tracee.Kill && !bytes.Contains(log.Bytes(), []byte("is full")) && !bytes.Contains(log.Bytes(), []byte("no space left")) && b.check(out) != nil {
			return fmt.Errorf("%s, call %d: does not say that the disk is full: %s", what, n, log.Bytes())
		}
		again, err := b.command(b.train(out)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s, call %d: the next start: %w: %s", what, n, err, again)
		}
		if from := resumedAt(again); from < last {
			return fmt.Errorf("%s, call %d: went on from step %d, and step %d was saved", what, n, from, last)
		}
		if err := b.check(out); err != nil {
			return fmt.Errorf("%s, call %d: %w", what, n, err)
		}
		tried++
	}
	fmt.Printf("%s: %d of %d calls tried, every next start went on and ended with the right weights\n", what, tried, total)
	return nil
}

// takesSpace tells the calls that fail on a full disk.
func takesSpace(call string) bool {
	switch call {
	case "write", "pwrite", "writev", "openat", "mkdir", "mkdirat":
		return true
	}
	return false
}

// traced runs a training under a tracer and returns how many calls it made.
func (b *bench) traced(out string, see func(tracee.Call) tracee.Verdict, log *bytes.Buffer) (calls int, err error) {
	f, err := os.Create(filepath.Join(b.dir, "traced.log"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	attr := &os.ProcAttr{Dir: b.dir, Env: os.Environ(), Files: []*os.File{nil, f, f}}
	_, err = tracee.Run(b.program, b.train(out), attr, func(c tracee.Call) tracee.Verdict {
		calls = c.N
		return see(c)
	})
	if err != nil || log == nil {
		return calls, err
	}
	text, err := os.ReadFile(f.Name())
	log.Write(text)
	return calls, err
}
