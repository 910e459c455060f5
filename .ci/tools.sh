# shellcheck shell=bash
# Tools of the checks that come with no package, built once into target/tools. To be sourced.

# need_cargo_deny: puts cargo-deny on PATH; fails if it is not there and cannot be built.
need_cargo_deny() {
  local version=0.20.2 tools=$PWD/target/tools
  export PATH=$tools/bin:$PATH
  if [[ $(cargo-deny --version 2>/dev/null) == "cargo-deny $version" ]]; then return 0; fi
  # Without optimisation it is built in a minute, and it has little to do here.
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools/build cargo install cargo-deny --version "=$version" --locked --debug --no-default-features --root "$tools" &&
    rm -rf "$tools/build"
}
