package target

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/local"
)

// Where Debian puts Tomcat and its manager.
const (
	tomcatHome    = "/usr/share/tomcat10"
	tomcatManager = "/usr/share/tomcat10-admin/manager"
)

const serverXML = `<Server port="-1"><Service name="Catalina">
<Connector address="127.0.0.1" port="%s"/>
<Connector address="127.0.0.1" port="%s" SSLEnabled="true" scheme="https" secure="true"><SSLHostConfig>
<Certificate certificateKeystoreFile="%s/tls/shop.p12" certificateKeystoreType="PKCS12" certificateKeystorePassword="%s"/>
</SSLHostConfig></Connector>
<Engine name="Catalina" defaultHost="localhost">
<Realm className="org.apache.catalina.realm.MemoryRealm"/>
<Host name="localhost" appBase="webapps" autoDeploy="false"/>
</Engine></Service></Server>
`

// startTomcat has the manager at an address of its own. It starts when it is first
// activated, as it cannot without a key store.
func startTomcat(t *testing.T) *real {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("java is not installed")
	}
	for _, need := range []string{tomcatHome + "/bin/bootstrap.jar", tomcatManager + "/WEB-INF/web.xml"} {
		if _, err := os.Stat(need); err != nil {
			t.Skip("tomcat10-common and tomcat10-admin are not installed")
		}
	}
	r := &real{kind: "tomcat", dir: t.TempDir(), addr: freeAddr(t)}
	manager := freeAddr(t)
	_, tls, err := net.SplitHostPort(r.addr)
	must(t, err)
	_, plain, err := net.SplitHostPort(manager)
	must(t, err)
	for name, text := range map[string]string{
		"conf/server.xml":                     fmt.Sprintf(serverXML, plain, tls, r.dir, testPassword),
		"conf/web.xml":                        `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"><servlet><servlet-name>jsp</servlet-name><servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class></servlet></web-app>`,
		"conf/tomcat-users.xml":               fmt.Sprintf(`<tomcat-users><role rolename="manager-script"/><user username="certfarm" password="%s" roles="manager-script"/></tomcat-users>`, managerPassword),
		"conf/Catalina/localhost/manager.xml": fmt.Sprintf(`<Context docBase="%s" privileged="true"/>`, tomcatManager),
		"start.sh": fmt.Sprintf(`cd %[1]s && mkdir -p temp webapps
setsid %[2]s -Xshare:auto -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=%[1]s/temp -Dcatalina.home=%[3]s -Dcatalina.base=%[1]s \
 -cp %[3]s/bin/bootstrap.jar:%[3]s/bin/tomcat-juli.jar org.apache.catalina.startup.Bootstrap start >error.log 2>&1 </dev/null & echo $! >pid`, r.dir, java, tomcatHome),
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(r.dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600))
	}
	text, err := json.Marshal(map[string]any{
		"path": r.dir + "/tls/shop.p12", "store": r.dir + "/store", "manager": "http://" + manager + "/manager",
		"start": []string{"sh", r.dir + "/start.sh"},
	})
	must(t, err)
	r.Deployer, err = All().Open(r.kind, text, deploy.Setup{Host: local.New(local.Config{}), Secrets: secrets()})
	must(t, err)
	t.Cleanup(func() { _ = exec.Command("sh", "-c", "kill -9 $(cat "+r.dir+"/pid)").Run() })
	return r
}

func TestRealTomcat(t *testing.T) {
	r := startTomcat(t)
	first, second := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.RSA2048)
	must(t, r.Activate(t.Context(), r.stage(t, 1, first))) // it does not run yet
	r.serves(t, first.Leaf)
	rs := r.stage(t, 2, second)
	must(t, r.Activate(t.Context(), rs))
	r.serves(t, second.Leaf)
	must(t, r.Restore(t.Context(), rs))
	r.serves(t, first.Leaf)
	must(t, r.Activate(t.Context(), rs))
	r.serves(t, second.Leaf)

	// What Tomcat cannot open it refuses, and serves on.
	live, err := filepath.EvalSymlinks(r.dir + "/tls/shop.p12")
	must(t, err)
	good, err := os.ReadFile(live)
	must(t, err)
	must(t, os.WriteFile(live, good[:len(good)/2], 0o600))
	if err := r.Deployer.(*engine).wake(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "failed to reload") {
		t.Errorf("a broken key store: %v", err)
	} else {
		t.Log(err)
	}
	r.serves(t, second.Leaf)
}
