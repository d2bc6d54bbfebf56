package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rule says what a package (and those below it) may not depend on.
type rule struct {
	pkg       string   // relative to the module
	forbidden []string // prefixes of import paths, ours relative to the module ("./")
	why       string
}

var rules = []rule{
	{"internal/kernel", []string{"./"}, "the kernels know numbers only"},
	{"internal/fault", []string{"./"}, "everything imports it"},
	{"internal/host", []string{"./"}, "everything may import it"},
	{"internal/tfevents", []string{"./"}, "it knows TensorBoard's format only"},
	{"train/runlog", []string{"./model", "./data", "./tokenizer", "./generate", "./train", "./serve", "./cmd", "./configs"}, "it is read without a model"},
	{"train/report", []string{"./model", "./data", "./tokenizer", "./generate", "./serve", "./cmd", "./configs"}, "it is made without a model"},
	{"internal/nearest", []string{"./"}, "everything may import it"},
	{"internal/mpi", []string{"./"}, "it knows the library only"},
	{"internal/atomicdir", []string{"./tokenizer", "./data", "./model", "./train", "./generate", "./serve", "./cmd"}, "it knows folders only"},
	{"tokenizer", []string{"./data", "./model", "./train", "./generate", "./serve", "./configs", "./cmd"}, "text to tokens needs nothing of ours"},
	{"data", []string{"./model", "./train", "./generate", "./serve", "./configs", "./cmd"}, "the data does not know who learns from it"},
	{"model", []string{"./train", "./generate", "./serve", "./configs", "./cmd"}, "the model does not know its users"},
	{"configs", []string{"./train", "./generate", "./serve", "./data", "./tokenizer", "./cmd"}, "a config is about the model alone"},
	{"train/dist", []string{"./tokenizer", "./data", "./model", "./generate", "./serve", "./configs", "./cmd"}, "sums and agreement, of whatever"},
	{"train", []string{"./serve", "./cmd", "./configs"}, "training does not serve"},
	{"generate", []string{"./train", "./data", "./serve", "./cmd", "./configs"}, "generation works without the training"},
	{"serve", []string{"./train", "./data", "./cmd", "./configs"}, "a server trains nothing"},
}

// only names the packages that may import a module directly.
var only = map[string][]string{
	"gorgonia.org/gorgonia":           {"internal/autodiff", "model", "train"},
	"gorgonia.org/tensor":             {"internal/autodiff", "model", "train"},
	"github.com/urfave/cli":           {"cmd"},
	"github.com/schollz/progressbar":  {"cmd"},
	"github.com/peterh/liner":         {"cmd"},
	"github.com/prometheus/":          {"serve"},
	"golang.org/x/term":               {"cmd"},
	"github.com/ebitengine/purego":    {"internal/mpi"},
	"go4.org/unsafe/assume-no-moving": {"internal/autodiff", "model", "train"},
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath string
	Module     *struct{ Path string }
	Imports    []string // direct, without those of tests
	Deps       []string // all
}

const module = "promptgen"

// Data flows one way, so that each package can be read, tested and replaced
// knowing only those below it.
func TestImportDirections(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, r := range rules {
			if !within(name, r.pkg) {
				continue
			}
			for _, dep := range p.Deps {
				dep, ours := strings.CutPrefix(dep, module+"/")
				if !ours || within(dep, r.pkg) {
					continue
				}
				for _, f := range r.forbidden {
					if f == "./" || within(dep, strings.TrimPrefix(f, "./")) {
						t.Errorf("%s depends on %s: %s", name, dep, r.why)
					}
				}
			}
		}
		for lib, users := range only {
			direct := slices.ContainsFunc(p.Imports, func(i string) bool { return strings.HasPrefix(i, lib) })
			if direct && !slices.ContainsFunc(users, func(u string) bool { return within(name, u) }) {
				t.Errorf("%s imports %s, which only %v may", name, lib, users)
			}
		}
		if slices.Contains(p.Imports, "C") {
			t.Errorf("%s uses cgo", name)
		}
	}
}

// within says whether pkg is root or lies below it.
func within(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }

// listPackages asks the go command for our packages and what they depend on.
func listPackages(t *testing.T) (ours []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Module,Imports,Deps", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Skipf("the go command cannot be run: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); err == io.EOF {
			return ours
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && p.Module.Path == module {
			ours = append(ours, p)
		}
	}
}
