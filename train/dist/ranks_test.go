package dist_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/testkit/mpitest"
	"promptgen/train/dist"
)

// asRank lets the test binary be a rank of a job.
const asRank = "DIST_TEST_RANK"

func TestMain(m *testing.M) {
	if os.Getenv(asRank) == "" {
		os.Exit(m.Run())
	}
	if err := rank(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Jobs of several sizes, of both libraries, whose ranks check what they get.
func TestRanks(t *testing.T) {
	for _, c := range []struct {
		flavour string
		ranks   int
	}{{mpitest.OpenMPI, 1}, {mpitest.OpenMPI, 3}, {mpitest.OpenMPI, 4}, {mpitest.MPICH, 2}, {mpitest.MPICH, 5}} {
		t.Run(fmt.Sprint(c.flavour, " ", c.ranks), func(t *testing.T) {
			args := append(mpitest.Run(t, c.flavour), "-n", fmt.Sprint(c.ranks), os.Args[0])
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), asRank+"=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// rank is what each rank of the jobs above does.
func rank() error {
	g, err := dist.Join(dist.Options{Mode: dist.MPI, Timeout: time.Minute})
	if err != nil {
		return err
	}
	for _, check := range []func(*dist.Group) error{checkSums, checkGather, checkBroadcast, checkSame, checkAgree} {
		if err := check(g); err != nil {
			return fmt.Errorf("rank %d: %w", g.Rank(), err)
		}
	}
	return g.Leave()
}

func add(dst, x []float32) {
	for i := range dst {
		dst[i] += x[i]
	}
}

// checkSums adds up shards in buckets that do not divide the length, handed over
// in portions, for more and for fewer shards than ranks.
func checkSums(g *dist.Group) error {
	const length, bucket = 1237, 100
	home, second, third := make([]float32, length), make([]float32, length), make([]float32, length)
	r := g.NewReducer(home, bucket, add)
	for shards := 1; shards <= 9; shards++ {
		rng := rand.New(rand.NewPCG(uint64(shards), 1))
		all := make([]dist.Part, shards)
		for s := range all {
			all[s] = dist.Part{Node: dist.Node{Index: s}, Sum: make([]float32, length)}
			for i := range all[s].Sum {
				all[s].Sum[i] = float32(rng.NormFloat64() * rng.ExpFloat64())
			}
		}
		var mine []dist.Part
		memory := [][]float32{home, second, third}
		lo, hi := dist.Share(shards, g.Rank(), g.Size())
		for s := lo; s < hi; s++ {
			if len(mine) == len(memory) {
				memory = append(memory, make([]float32, length))
			}
			copy(memory[len(mine)], all[s].Sum)
			mine = append(mine, dist.Part{Node: all[s].Node, Sum: memory[len(mine)]})
		}
		if err := r.Begin(shards, mine); err != nil {
			return err
		}
		for _, from := range []int{1200, 1100, 650, 0} {
			r.Final(from)
		}
		if _, err := r.Wait(); err != nil {
			return err
		}
		want := dist.Fold(shards, dist.Root(shards), all, nil, add)
		for i := range want {
			if home[i] != want[i] {
				return fmt.Errorf("%d shards, element %d: %v, want %v", shards, i, home[i], want[i])
			}
		}
	}
	return nil
}

// checkGather gives bytes of unequal length, none among them, and numbers.
func checkGather(g *dist.Group) error {
	all, err := g.Gather([]byte(strings.Repeat("x", 3*g.Rank())))
	if err != nil {
		return err
	}
	floats, err := g.Floats(float64(g.Rank()), -1.5)
	if err != nil {
		return err
	}
	for r := range g.Size() {
		if len(all[r]) != 3*r || floats[r][0] != float64(r) || floats[r][1] != -1.5 {
			return fmt.Errorf("gathered %q and %v of rank %d", all[r], floats[r], r)
		}
	}
	return nil
}

// checkBroadcast passes on more than a bucket.
func checkBroadcast(g *dist.Group) error {
	data := make([]float32, dist.BucketLen+7)
	if g.Lead() {
		for i := range data {
			data[i] = float32(i % 1000)
		}
	}
	if err := g.Broadcast(data); err != nil {
		return err
	}
	for i, v := range data {
		if v != float32(i%1000) {
			return fmt.Errorf("element %d of the broadcast is %v", i, v)
		}
	}
	return nil
}

// checkSame names the rank and what differs, in every rank.
func checkSame(g *dist.Group) error {
	if err := g.Same(map[string]string{"n_layer": "2"}); err != nil {
		return err
	}
	if g.Size() == 1 {
		return nil
	}
	err := g.Same(map[string]string{"n_layer": fmt.Sprint(2 + g.Rank()), "lr": "1"})
	switch {
	case fault.Code(err) != fault.CodeUsage || !dist.Agreed(err):
		return fmt.Errorf("unlike ranks: %v", err)
	case !strings.Contains(err.Error(), "n_layer is 3 at rank 1") || strings.Contains(err.Error(), "lr"):
		return fmt.Errorf("unlike ranks are told as: %v", err)
	case errors.Is(err, dist.ErrElsewhere) == g.Lead():
		return fmt.Errorf("rank %d: who reports it? %v", g.Rank(), err)
	}
	return nil
}

// checkAgree has the last rank fail: all have its code, rank 0 its words.
func checkAgree(g *dist.Group) error {
	if err := g.Agree(nil); err != nil {
		return err
	}
	var mine error
	if g.Rank() == g.Size()-1 {
		mine = fault.Data("no step is possible")
	}
	err := g.Agree(mine)
	if fault.Code(err) != fault.CodeData || !dist.Agreed(err) {
		return fmt.Errorf("agreed on %v", err)
	}
	if g.Lead() != strings.Contains(err.Error(), "no step is possible") {
		return fmt.Errorf("rank %d says %v", g.Rank(), err)
	}
	return nil
}

// Without a launcher there is no group, and a nil one is a job of one rank.
func TestNoGroup(t *testing.T) {
	for _, name := range []string{"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"} {
		t.Setenv(name, "")
	}
	t.Setenv("SLURM_PROCID", "1") // stands in a batch script too
	g, err := dist.Join(dist.Options{})
	if g != nil || err != nil || dist.Launched() {
		t.Fatal(g, err)
	}
	if _, err := dist.Join(dist.Options{Mode: dist.MPI}); fault.Code(err) != fault.CodeUsage {
		t.Error(err)
	}
	fails := errors.New("fails")
	if g.Rank() != 0 || g.Size() != 1 || !g.Lead() || g.Agree(fails) != fails || g.Same(nil) != nil || g.Leave() != nil {
		t.Error("a nil group is not one rank")
	}
}
