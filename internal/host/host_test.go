package host

import (
	"runtime"
	"strings"
	"testing"
)

// What a result is read with later names the program and the machine, whatever
// the system tells; nothing stays empty.
func TestFacts(t *testing.T) {
	p := ReadProgram()
	if p.Version == "" || p.Go != runtime.Version() || p.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", p)
	}
	m := ReadMachine()
	if m.CPU == "" || !strings.HasPrefix(m.OS, runtime.GOOS) && runtime.GOOS != "linux" || m.ISA != "" || m.Threads != 0 {
		t.Errorf("%+v", m)
	}
	switch h := HugePages(); h {
	case "always", "madvise", "never", "not offered":
	default:
		t.Errorf("huge pages: %q", h)
	}
}

// The facts are found in what Linux writes, and made up for nowhere else.
func TestParsing(t *testing.T) {
	for text, want := range map[string]string{
		"processor\t: 0\nmodel name\t: AMD EPYC: 9\nmodel name\t: other\n": "AMD EPYC: 9",
		"processor\t: 0\nBogoMIPS\t: 50\n":                                 runtime.GOARCH,
		"":                                                                 runtime.GOARCH,
	} {
		if got := cpuName(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{"always [madvise] never\n": "madvise", "[always] madvise never": "always", "": "not offered", "[": "not offered"} {
		if got := chosen(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, c := range []struct{ release, kernel, want string }{
		{"NAME=x\nPRETTY_NAME=\"Debian 12\"\n", "6.1.0\n", "Debian 12, kernel 6.1.0"},
		{"", "6.1.0", runtime.GOOS + ", kernel 6.1.0"},
		{"", "", runtime.GOOS},
	} {
		if got := osName(c.release, c.kernel); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.release, c.kernel, got, c.want)
		}
	}
}
