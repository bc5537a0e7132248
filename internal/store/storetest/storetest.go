// Package storetest gives tests a store of their own, on every database there is:
// SQLite always, PostgreSQL when CERTFARM_TEST_POSTGRES names one or when its
// programs are installed and a throw-away server can be started.
package storetest

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/certfarm/certfarm/internal/store"
)

// variable names the address of a PostgreSQL whose user may create schemas.
const variable = "CERTFARM_TEST_POSTGRES"

// Main runs a package's tests with a PostgreSQL server of their own, if there is
// none yet and one can be started. Call it from TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }
func Main(m *testing.M) int {
	if os.Getenv(variable) == "" {
		address, stop, err := start()
		if err == nil {
			defer stop()
			os.Setenv(variable, address) // fails for names without sense only
		} else {
			fmt.Fprintln(os.Stderr, "storetest: no PostgreSQL:", err)
		}
	}
	return m.Run()
}

// Databases are the names of all databases there are; see Open.
func Databases() []string { return []string{"sqlite", "postgres"} }

// Each runs f against every database there is. open may be called again after
// the store is closed: it is the same database.
func Each(t *testing.T, f func(t *testing.T, open func(store.Options) *store.Store)) {
	t.Helper()
	for _, name := range Databases() {
		t.Run(name, func(t *testing.T) { f(t, opener(t, address(t, name))) })
	}
}

// Open opens an empty store of the test's own in a database.
func Open(t testing.TB, database string, o store.Options) *store.Store {
	t.Helper()
	return opener(t, address(t, database))(o)
}

// SQLite opens an empty store in a folder of the test's own.
func SQLite(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	return Open(t, "sqlite", o)
}

func address(t testing.TB, database string) string {
	t.Helper()
	if database == "postgres" {
		return Postgres(t)
	}
	return filepath.Join(t.TempDir(), "certfarm.db")
}

func opener(t testing.TB, address string) func(store.Options) *store.Store {
	return func(o store.Options) *store.Store {
		t.Helper()
		s, err := store.Open(t.Context(), address, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() }) // the test may have closed it
		return s
	}
}

// Postgres returns the address of a schema of the test's own, dropped when the
// test ends. It skips the test if there is no server.
func Postgres(t testing.TB) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		t.Skip("no PostgreSQL: set " + variable + ", or install it (apt-get install postgresql)")
	}
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(store.NewID("test"))
	if _, err := db.Exec("CREATE SCHEMA " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(db, name); err != nil {
			t.Error(err)
		}
		db.Close() // the server goes away after this
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// drop takes a schema away. A controller that was cut from the database may have left a
// transaction there that the server has not noticed yet: a deadlock with it ends it or us.
func drop(db *sql.DB, schema string) (err error) {
	for range 5 {
		_, err = db.Exec("DROP SCHEMA " + schema + " CASCADE")
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "40P01" { // deadlock_detected
			return err
		}
	}
	return err
}
