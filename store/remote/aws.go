package remote

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-ini/ini"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmgrid/wasmgrid/grid"
)

// awsSettings is what the environment says of S3, as the tools of AWS read it.
type awsSettings struct {
	creds    *credentials.Credentials // nil: anonymous
	region   string
	endpoint *url.URL // nil: that of AWS
}

// maxINI bounds a file of settings.
const maxINI = 1 << 20

// readAWS finds the settings: variables come before files, and the file credentials before config.
func readAWS(lookup func(string) (string, bool)) (*awsSettings, error) {
	env := func(names ...string) string {
		for _, name := range names {
			if v, _ := lookup(name); v != "" {
				return v
			}
		}
		return ""
	}
	home := env("HOME", "USERPROFILE")
	file := func(variable, name string) string {
		if p := env(variable); p != "" || home == "" {
			return p
		}
		return filepath.Join(home, ".aws", name)
	}
	profile, named := env("AWS_PROFILE", "AWS_DEFAULT_PROFILE"), true
	if profile == "" {
		profile, named = "default", false
	}
	credentialsFile, configFile := file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")
	secrets, err := readINI(credentialsFile)
	if err != nil {
		return nil, err
	}
	config, err := readINI(configFile)
	if err != nil {
		return nil, err
	}
	p := awsProfile{name: profile, secrets: section(secrets, profile), config: section(config, "profile "+profile)}
	if profile == "default" && p.config == nil {
		p.config = section(config, "default")
	}
	if named && p.secrets == nil && p.config == nil {
		return nil, grid.Errorf(grid.NotFound, "AWS_PROFILE %q is neither in %s nor in %s", profile, credentialsFile, configFile)
	}
	s := &awsSettings{region: env("AWS_REGION", "AWS_DEFAULT_REGION")}
	if s.region == "" {
		s.region = p.get("region")
	}
	endpoint := env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	if endpoint == "" {
		endpoint = p.endpoint(config)
	}
	if endpoint != "" {
		if s.endpoint, err = parseEndpoint(endpoint); err != nil {
			return nil, err
		}
	}
	id, secret := env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		s.creds = credentials.NewStaticV4(id, secret, env("AWS_SESSION_TOKEN"))
	case id != "" || secret != "":
		return nil, grid.Errorf(grid.Invalid, "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set")
	default:
		s.creds, err = p.credentials(credentialsFile, configFile)
	}
	return s, err
}

// awsProfile is a profile's sections in the two files; nil where there is none.
type awsProfile struct {
	name            string
	secrets, config *ini.Section
}

func (p awsProfile) get(key string) string {
	for _, s := range []*ini.Section{p.secrets, p.config} {
		if s != nil && s.Key(key).String() != "" {
			return s.Key(key).String()
		}
	}
	return ""
}

// endpoint is that of the profile's services, else its own.
func (p awsProfile) endpoint(config *ini.File) string {
	if services := section(config, "services "+p.get("services")); services != nil {
		for _, line := range services.Key("s3").NestedValues() {
			if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == "endpoint_url" {
				return strings.TrimSpace(v)
			}
		}
	}
	return p.get("endpoint_url")
}

// credentials are keys, or those of a program; nil when the profile says nothing of any.
func (p awsProfile) credentials(credentialsFile, configFile string) (*credentials.Credentials, error) {
	id, secret := p.get("aws_access_key_id"), p.get("aws_secret_access_key")
	if id != "" && secret != "" {
		return credentials.NewStaticV4(id, secret, p.get("aws_session_token")), nil
	}
	if p.secrets != nil && p.secrets.HasKey("credential_process") {
		return credentials.NewFileAWSCredentials(credentialsFile, p.secrets.Name()), nil
	}
	if p.config != nil && p.config.HasKey("credential_process") {
		return credentials.NewFileAWSCredentials(configFile, p.config.Name()), nil
	}
	for _, key := range []string{"sso_session", "sso_start_url", "role_arn"} {
		if p.get(key) != "" {
			return nil, grid.Errorf(grid.Unsupported, "the profile %q has no keys but %s, which is not understood here", p.name, key).
				Hint("eval \"$(aws configure export-credentials --profile %s --format env)\" puts keys into the environment", p.name)
		}
	}
	return nil, nil
}

func section(f *ini.File, name string) *ini.Section {
	if f == nil {
		return nil
	}
	s, err := f.GetSection(name)
	if err != nil {
		return nil
	}
	return s
}

// readINI reads a file of settings; nil when there is none.
func readINI(name string) (*ini.File, error) {
	if name == "" {
		return nil, nil
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err == nil && !info.Mode().IsRegular():
		return nil, grid.Errorf(grid.Invalid, "%s is not a file", name)
	case err == nil && info.Size() > maxINI:
		return nil, grid.Errorf(grid.Limit, "%s has %d bytes, at most %d are read", name, info.Size(), maxINI)
	}
	var f *ini.File
	if err == nil {
		f, err = ini.LoadSources(ini.LoadOptions{AllowNestedValues: true, SkipUnrecognizableLines: true}, name)
	}
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "the settings in %s: %w", name, err)
	}
	return f, nil
}

func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, grid.Errorf(grid.Invalid, "the S3 endpoint %q: want https://HOST or http://HOST, with a port if need be and without a path", s).
			Hint("it is set by AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or endpoint_url in the profile")
	}
	return u, nil
}
