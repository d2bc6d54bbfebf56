package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"promptgen/internal/fault"
)

// TestMain lets the test binary stand in for mpirun: it notes how it was called
// and ends with the next of the exit codes that it is told.
func TestMain(m *testing.M) {
	dir := os.Getenv("FAKE_MPIRUN")
	if dir == "" {
		os.Exit(m.Run())
	}
	if os.Args[1] == "--version" {
		fmt.Println(os.Getenv("FAKE_VERSION"))
		return
	}
	calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
	n := bytes.Count(calls, []byte("\n"))
	if i := strings.Index(strings.Join(os.Args, "\x00"), "hostfile\x00"); i >= 0 { // what it says, for it will be gone
		name, _, _ := strings.Cut(strings.Join(os.Args, "\x00")[i+len("hostfile\x00"):], "\x00")
		text, _ := os.ReadFile(name)
		os.Args = append(os.Args, strings.ReplaceAll(string(text), "\n", ","))
	}
	_ = os.WriteFile(filepath.Join(dir, "calls"), append(calls, strings.Join(os.Args[1:], " ")+"\n"...), 0o666)
	code, _ := strconv.Atoi(strings.Fields(os.Getenv("FAKE_CODES"))[n])
	os.Exit(code)
}

// job runs a launch over the fake mpirun, which ends with these codes, and
// returns its calls, its log and the error.
func job(t *testing.T, o Options, codes string) (calls []string, log string, err error) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("FAKE_MPIRUN", dir)
	t.Setenv("FAKE_CODES", codes)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Mpirun, o.Program, o.Args = exe, "/opt/promptgen", []string{"train", "--epochs", "3"}
	o.Log = func(line string) { log += line + "\n" }
	err = Run(t.Context(), o)
	b, _ := os.ReadFile(filepath.Join(dir, "calls"))
	return strings.Split(strings.TrimSpace(string(b)), "\n"), log, err
}

// A job that fails in a way that another start may mend is started again, as
// often as allowed; what would fail again is not. The exit code is the job's.
func TestRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("waits before it starts again")
	}
	t.Setenv("FAKE_VERSION", "mpirun (Open MPI) 4.1.4")
	t.Setenv("PROMPTGEN_ISA", "go")
	calls, log, err := job(t, Options{Ranks: 3, MaxRestarts: 2}, "75 0")
	if err != nil || len(calls) != 2 || !strings.Contains(log, "a rank hung") || !strings.Contains(log, "restart 1 of 2, from the last checkpoint, with 3 ranks") {
		t.Errorf("%v, %q, %s", err, calls, log)
	}
	for _, want := range []string{"-np 3 ", "--oversubscribe /opt/promptgen train --epochs 3", "-x PROMPTGEN_ISA", "oob_tcp_keepalive_time 3"} {
		if !strings.Contains(calls[0], want) {
			t.Errorf("no %q in %s", want, calls[0])
		}
	}
	if calls, _, err := job(t, Options{Ranks: 1, MaxRestarts: 1}, "137 137"); fault.Code(err) != 137 || len(calls) != 2 || !strings.Contains(err.Error(), "signal 9") {
		t.Errorf("%v, %q", err, calls)
	}
	if calls, _, err := job(t, Options{Ranks: 1, MaxRestarts: 5}, "3 0"); fault.Code(err) != fault.CodeData || len(calls) != 1 {
		t.Errorf("%v, %q", err, calls)
	}
}

// A host that does not answer is left out of the next start, in each
// implementation's hostfile.
func TestLostHost(t *testing.T) {
	if testing.Short() {
		t.Skip("waits before it starts again")
	}
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("here.invalid slots=2\ngone.invalid slots=3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(dir, "agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\n[ \"$1\" = here.invalid ]\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(agent, "here.invalid").Run(); err != nil {
		t.Skipf("no shell scripts here: %v", err)
	}
	t.Setenv("OMPI_MCA_plm_rsh_agent", agent)
	t.Setenv("FAKE_VERSION", "HYDRA build details")
	calls, log, err := job(t, Options{Ranks: 4, Hostfile: hosts, MaxRestarts: 1}, "1 0")
	if err != nil || len(calls) != 2 || !strings.Contains(log, "gone.invalid does not answer") {
		t.Fatalf("%v, %q, %s", err, calls, log)
	}
	if !strings.HasPrefix(calls[0], "-n 4 -bind-to none -f ") || !strings.HasPrefix(calls[1], "-n 2 ") {
		t.Errorf("%q", calls)
	}
	for _, h := range []struct {
		left []host
		want string
	}{{[]host{{"here.invalid", 2}}, "[{here.invalid 2}]"}, {[]host{{"localhost", 2}, {"gone.invalid", 1}}, "[{localhost 2}]"}, {[]host{{"gone.invalid", 1}}, "[]"}} {
		if got := fmt.Sprint(reachable(context.Background(), h.left, func(string) {})); got != h.want {
			t.Errorf("%v: %s, want %s", h.left, got, h.want)
		}
	}
	if _, _, err := job(t, Options{Ranks: 6, Hostfile: hosts}, "0"); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "5 slots") {
		t.Errorf("%v", err)
	}
	if _, _, err := job(t, Options{Ranks: 1, Hostfile: filepath.Join(dir, "absent")}, "0"); fault.Code(err) != fault.CodeUsage {
		t.Errorf("%v", err)
	}
}

// Other hosts are asked with the command that mpirun would take: the first that
// is there, however the variables are filled, and ssh where they name none.
func TestRemoteShell(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("#!/bin/sh\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(there); err != nil || strings.Contains(there, ":") {
		t.Skipf("no such commands here: %v", err)
	}
	absent := filepath.Join(dir, "absent")
	for _, c := range []struct{ openMPI, hydra, want string }{
		{"", "", "ssh"},
		{" ", "", "ssh"},
		{" : ", " ", "ssh"},
		{absent + " -x : " + there + " -q : ssh", "", there + " -q"},
		{absent, there + " -v", there + " -v"},
		{there, absent, there},
		{absent, absent, "ssh"},
	} {
		t.Setenv("OMPI_MCA_plm_rsh_agent", c.openMPI)
		t.Setenv("HYDRA_LAUNCHER_EXEC", c.hydra)
		if got := strings.Join(remoteShell(), " "); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.openMPI, c.hydra, got, c.want)
		}
	}
}

// Names are looked up for all hosts at once, and not beyond an interrupt: a name
// server that is gone would hold a restart up for each of them in turn.
func TestNamesAreLookedUpTogether(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var waiting atomic.Int32
	var waitedOut atomic.Bool
	former := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = former })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(asked context.Context, _, _ string) (net.Conn, error) {
		if waiting.Add(1) > 2 { // more than a single name takes: IPv4 and IPv6
			interrupt()
		}
		defer waiting.Add(-1)
		<-asked.Done()
		if errors.Is(asked.Err(), context.DeadlineExceeded) {
			waitedOut.Store(true)
		}
		return nil, asked.Err()
	}}
	if left := reachable(ctx, []host{{"a.invalid.", 1}, {"b.invalid.", 1}, {"c.invalid.", 1}}, func(string) {}); len(left) > 0 || ctx.Err() == nil || waitedOut.Load() {
		t.Errorf("left %v; looked up together: %v; beyond the interrupt: %v", left, ctx.Err() != nil, waitedOut.Load())
	}
}

// A hostfile is written as each implementation reads it, and removed.
func TestWriteHosts(t *testing.T) {
	for _, c := range []struct {
		kind flavour
		want string
	}{{openMPI, "a slots=2\nb slots=1\n"}, {hydra, "a:2\nb:1\n"}} {
		path, remove, err := writeHosts([]host{{"a", 2}, {"b", 1}}, c.kind.line)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != c.want {
			t.Errorf("%q, %v, want %q", text, err, c.want)
		}
		if !strings.Contains(strings.Join(c.kind.args(3, path), " "), path) {
			t.Errorf("the hostfile is not named: %v", c.kind.args(3, path))
		}
		remove()
		if _, err := os.Stat(path); err == nil {
			t.Error("the hostfile was left behind")
		}
	}
}

// What is no MPI is refused before anything is started.
func TestIdentify(t *testing.T) {
	for version, part := range map[string]string{"mpirun of another kind": "neither Open MPI's nor MPICH's"} {
		t.Setenv("FAKE_VERSION", version)
		if _, _, err := job(t, Options{Ranks: 1}, "0"); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", version, err)
		}
	}
	if _, err := identify(t.Context(), filepath.Join(t.TempDir(), "mpirun")); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "install Open MPI") {
		t.Errorf("%v", err)
	}
	if _, err := identify(t.Context(), t.TempDir()); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a folder: %v", err)
	}
}
