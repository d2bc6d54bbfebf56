package launch

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"promptgen/internal/fault"
)

// host is a line of a hostfile.
type host struct {
	name  string
	slots int // ranks that it takes
}

func slotsOf(hosts []host) (n int) {
	for _, h := range hosts {
		n += h.slots
	}
	return n
}

// readHosts reads a hostfile: "name", "name slots=N" (Open MPI) or "name:N"
// (MPICH) a line, # begins a comment.
func readHosts(path string) ([]host, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Usage("hostfile: %w", err)
	}
	hosts, err := parseHosts(string(b))
	if err != nil {
		return nil, fault.Usage("%s: %w", path, err)
	}
	return hosts, nil
}

// maxSlots bounds what a hostfile may say of one host.
const maxSlots = 1 << 12

func parseHosts(text string) ([]host, error) {
	var hosts []host
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		h := host{name: words[0], slots: 1}
		count := ""
		if name, n, ok := strings.Cut(h.name, ":"); ok {
			h.name, count = name, n
		}
		for _, w := range words[1:] {
			if key, n, _ := strings.Cut(w, "="); key == "slots" {
				count = n
			} else if key != "max_slots" && key != "max-slots" {
				return nil, fmt.Errorf("line %d: %q is not understood; write \"host slots=N\"", i+1, w)
			}
		}
		if count != "" {
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 || n > maxSlots {
				return nil, fmt.Errorf("line %d: the number of slots must be 1 to %d, not %q", i+1, maxSlots, count)
			}
			h.slots = n
		}
		if h.name == "" || strings.HasPrefix(h.name, "-") { // would be taken for an option
			return nil, fmt.Errorf("line %d: %q is no host", i+1, words[0])
		}
		hosts = append(hosts, h)
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("no host in it")
	}
	return hosts, nil
}

// writeHosts writes a hostfile of its own for one run of mpirun.
func writeHosts(hosts []host, line func(host) string) (path string, remove func(), err error) {
	if len(hosts) == 0 {
		return "", func() {}, nil
	}
	f, err := os.CreateTemp("", "promptgen-hosts-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.Remove(f.Name()) }
	for _, h := range hosts {
		if _, err = fmt.Fprintln(f, line(h)); err != nil {
			break
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("hostfile for this run: %w", err)
	}
	return f.Name(), remove, nil
}

// remoteShell is the command that mpirun reaches other hosts with, as its
// variables say: Open MPI takes the first of several that is there, with colons
// between them. Without one that is there it is ssh.
func remoteShell() []string {
	shells := strings.Split(os.Getenv("OMPI_MCA_plm_rsh_agent"), ":")
	for _, shell := range append(shells, os.Getenv("HYDRA_LAUNCHER_EXEC")) {
		if words := strings.Fields(shell); len(words) > 0 {
			if _, err := exec.LookPath(words[0]); err == nil {
				return words
			}
		}
	}
	return []string{"ssh"}
}

// answerTimeout is how long a host may take to answer before it counts as lost,
// finding its address included.
const answerTimeout = 5 * time.Second

// reachable is the hosts that a command can be run on, asked the way mpirun
// would, all at the same time.
func reachable(ctx context.Context, hosts []host, log func(string)) []host {
	shell := remoteShell()
	answers, local := make([]bool, len(hosts)), make([]bool, len(hosts))
	var all sync.WaitGroup
	for i, h := range hosts {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			if local[i] = isLocal(ctx, h.name); local[i] {
				answers[i] = true
				return
			}
			cmd := exec.CommandContext(ctx, shell[0], append(shell[1:len(shell):len(shell)], h.name, "true")...)
			cmd.WaitDelay = time.Second
			answers[i] = cmd.Run() == nil
		})
	}
	all.Wait()
	var left []host
	elsewhere := false
	for i, h := range hosts {
		if answers[i] {
			left = append(left, h)
			elsewhere = elsewhere || !local[i]
		} else {
			log(fmt.Sprintf("host %s does not answer and is left out", h.name))
		}
	}
	if len(left) > 0 && !elsewhere {
		// mpirun may not know this machine by an address whose link is down.
		return []host{{"localhost", slotsOf(left)}}
	}
	return left
}

// isLocal says whether a name is this machine's.
func isLocal(ctx context.Context, name string) bool {
	own, _ := os.Hostname()
	if name == "localhost" || name == own {
		return true
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, name)
	if err != nil {
		return false
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IP.IsLoopback() {
			return true
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.IP) {
				return true
			}
		}
	}
	return false
}
