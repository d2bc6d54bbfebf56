package launch

import (
	"reflect"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// Hostfiles of both kinds of MPI are read; what is no hostfile is refused with
// the line.
func TestParseHosts(t *testing.T) {
	got, err := parseHosts("# nodes\n10.0.0.1 slots=4 # first\n\nb\nnode-c:2\nd slots=8 max_slots=8\n")
	want := []host{{"10.0.0.1", 4}, {"b", 1}, {"node-c", 2}, {"d", 8}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for text, part := range map[string]string{
		"":                         "no host",
		"a slots=0":                "line 1",
		"a\nb slots=many":          "line 2",
		"a:99999":                  "slots",
		"a cores=3":                `"cores=3"`,
		"-oProxyCommand=x slots=1": "no host",
	} {
		if _, err := parseHosts(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add("a slots=2\nb:3\n")
	f.Fuzz(func(t *testing.T, text string) {
		hosts, err := parseHosts(text)
		if err == nil && slotsOf(hosts) < len(hosts) {
			t.Errorf("%q: %v", text, hosts)
		}
	})
}

// Every fault of the options is named at once, and what a restart cannot mend is
// not tried again.
func TestOptionsAndCodes(t *testing.T) {
	err := Options{Ranks: 0, MaxRestarts: -1, Args: []string{"serve"}}.Check()
	for _, part := range []string{"--np", "--max-restarts", "-- train"} {
		if fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	for code, want := range map[int]bool{1: true, 2: false, 3: false, 4: false, 5: false, 75: true, 130: false, 137: true, 255: true} {
		if mendable(code) != want {
			t.Errorf("exit code %d: %v", code, !want)
		}
	}
}
