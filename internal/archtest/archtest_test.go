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
	but       []string // that it may depend on all the same
}

var rules = []rule{
	{pkg: "internal/kernel", forbidden: []string{"./"}, why: "the kernels know numbers only", but: []string{"internal/half", "internal/splitmix"}},
	{pkg: "internal/splitmix", forbidden: []string{"./"}, why: "it is about numbers"},
	{pkg: "internal/half", forbidden: []string{"./"}, why: "it is about numbers"},
	{pkg: "internal/fault", forbidden: []string{"./"}, why: "everything imports it"},
	{pkg: "internal/host", forbidden: []string{"./"}, why: "everything may import it"},
	{pkg: "internal/tfevents", forbidden: []string{"./"}, why: "it knows TensorBoard's format only"},
	{pkg: "train/runlog", forbidden: []string{"./model", "./data", "./tokenizer", "./generate", "./train", "./serve", "./cmd", "./configs"}, why: "it is read without a model"},
	{pkg: "train/report", forbidden: []string{"./model", "./data", "./tokenizer", "./generate", "./serve", "./cmd", "./configs"}, why: "it is made without a model"},
	{pkg: "internal/nearest", forbidden: []string{"./"}, why: "everything may import it"},
	{pkg: "internal/mpi", forbidden: []string{"./"}, why: "it knows the library only"},
	{pkg: "internal/atomicdir", forbidden: []string{"./tokenizer", "./data", "./model", "./train", "./generate", "./serve", "./cmd"}, why: "it knows folders only"},
	{pkg: "tokenizer", forbidden: []string{"./data", "./model", "./train", "./generate", "./serve", "./configs", "./cmd"}, why: "text to tokens needs nothing of ours"},
	{pkg: "data", forbidden: []string{"./model", "./train", "./generate", "./serve", "./configs", "./cmd"}, why: "the data does not know who learns from it"},
	{pkg: "model", forbidden: []string{"./train", "./generate", "./serve", "./configs", "./cmd"}, why: "the model does not know its users"},
	{pkg: "configs", forbidden: []string{"./train", "./generate", "./serve", "./data", "./tokenizer", "./cmd"}, why: "a config is about the model alone"},
	{pkg: "train/dist", forbidden: []string{"./tokenizer", "./data", "./model", "./generate", "./serve", "./configs", "./cmd"}, why: "sums and agreement, of whatever"},
	{pkg: "train", forbidden: []string{"./serve", "./cmd", "./configs"}, why: "training does not serve"},
	{pkg: "generate", forbidden: []string{"./train", "./data", "./serve", "./cmd", "./configs"}, why: "generation works without the training"},
	{pkg: "serve", forbidden: []string{"./train", "./data", "./cmd", "./configs"}, why: "a server trains nothing"},
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
				if !ours || within(dep, r.pkg) || slices.Contains(r.but, dep) {
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
