package launch

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
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

// answerTimeout is how long a host may take to answer before it counts as lost.
const answerTimeout = 5 * time.Second

// reachable is the hosts that a command can be run on, asked the way mpirun
// would: by its agent, ssh if nothing else is set.
func reachable(ctx context.Context, hosts []host, log func(string)) []host {
	agent := strings.Fields(cmp.Or(os.Getenv("OMPI_MCA_plm_rsh_agent"), os.Getenv("HYDRA_LAUNCHER_EXEC"), "ssh"))
	answers := make([]bool, len(hosts))
	var all sync.WaitGroup
	for i, h := range hosts {
		if answers[i] = isLocal(h.name); answers[i] {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			cmd := exec.CommandContext(ctx, agent[0], append(agent[1:len(agent):len(agent)], h.name, "true")...)
			cmd.WaitDelay = time.Second
			answers[i] = cmd.Run() == nil
		})
	}
	all.Wait()
	var left []host
	for i, h := range hosts {
		if answers[i] {
			left = append(left, h)
		} else {
			log(fmt.Sprintf("host %s does not answer and is left out", h.name))
		}
	}
	if len(left) > 0 && !slices.ContainsFunc(left, func(h host) bool { return !isLocal(h.name) }) {
		// mpirun may not know this machine by an address whose link is down.
		return []host{{"localhost", slotsOf(left)}}
	}
	return left
}

// isLocal says whether a name is this machine's.
func isLocal(name string) bool {
	own, _ := os.Hostname()
	if name == "localhost" || name == own {
		return true
	}
	ips, err := net.LookupIP(name)
	if err != nil {
		return false
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IsLoopback() {
			return true
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
				return true
			}
		}
	}
	return false
}
