package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the program itself, for tests that need it
// on a terminal.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_PROGRAM") != "" {
		main()
	}
	os.Exit(m.Run())
}

// terminal is a program on a pseudo terminal.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text string // what is on the screen, from the last expect on
}

func onTerminal(t *testing.T, args ...string) *terminal {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 60}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer slave.Close()
	x := &terminal{t: t, master: master, cmd: exec.Command(os.Args[0], args...)}
	x.cmd.Env = append(os.Environ(), "RUN_AS_PROGRAM=1", "TERM=xterm")
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.cmd.Process.Kill() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			x.mu.Lock()
			x.text += string(buf[:n])
			if len(x.text) > 1<<16 { // of an endless text the end will do
				x.text = x.text[len(x.text)-1<<15:]
			}
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) typed(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// expect waits until the screen has shown the text, and forgets what was before
// its end.
func (x *terminal) expect(text string) {
	x.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		x.mu.Lock()
		before, after, found := strings.Cut(x.text, text)
		if found {
			x.text = after
		}
		x.mu.Unlock()
		switch {
		case found:
			return
		case time.Now().After(end):
			x.t.Fatalf("%q was not shown but %.500q", text, before)
		}
	}
}

// ends waits for the program's end.
func (x *terminal) ends(code int) {
	x.t.Helper()
	_ = x.cmd.Wait()
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("exit code %d, want %d", got, code)
	}
}

// At a terminal a user types prompts, edits and recalls them, changes settings,
// stops a text with Ctrl-C and the program with an empty line.
func TestConversation(t *testing.T) {
	trained(t)
	x := onTerminal(t, "generate", "--samples", "2", "--length", "4", "--quiet", "--greedy")
	x.expect(promptLine)
	x.typed("高血压\r")
	x.expect("[1] 高血压")
	x.expect("[2] 高血压")
	x.expect(promptLine)
	x.typed("/set samples 1\r")
	x.expect("\nsamples 1\r\n")
	x.expect(promptLine)
	x.typed("高第压\x02\x7f血\r") // one to the left, delete what is before, write another
	x.expect("\n高血压")
	x.expect(promptLine)
	x.typed("\x10\x10\r") // the line before the last one
	x.expect("\nsamples 1\r\n")
	x.expect(promptLine)
	x.typed("/set temprature 0.8\r")
	x.expect(`did you mean "temperature"?`)
	x.expect(promptLine)
	x.typed("/set top_p 3\r")
	x.expect("top_p must be between 0 and 1")
	x.expect(promptLine)
	x.typed("/agian\r")
	x.expect("did you mean /again?")
	x.expect(promptLine)
	x.typed("/again\r")
	x.expect("\n高血压")
	x.expect(promptLine)
	x.typed("/set length 90000000\r")
	x.expect(promptLine)
	x.typed("/set min-length 90000000\r")
	x.expect(promptLine)
	x.typed("/set stream on\r")
	x.expect("stream on")
	x.expect(promptLine)
	x.typed("要注意\r")
	x.expect("\n要注意")
	x.typed("\x03") // the text
	x.expect("stopped")
	x.expect(promptLine)
	x.typed("abc\x03") // the line
	x.expect("Ctrl-C once more")
	x.expect(promptLine)
	x.typed("\r")
	x.ends(0)

	y := onTerminal(t, "generate", "--quiet")
	y.expect(promptLine)
	y.typed("/quit\r")
	y.ends(0)
}
