# syntax=docker/dockerfile:1.7
# The syncline binary in an image with nothing else in it: no shell, no package manager, no root.
#
#   docker build -t syncline .
#   docker run --rm -p 127.0.0.1:50051:50051 -v syncline:/var/lib/syncline \
#     -e SYNCLINE_LISTEN=0.0.0.0:50051 -e SYNCLINE_INSECURE_LISTEN=true \
#     -e SYNCLINE_DATABASE=sqlite:hub.db syncline
#
# By default the service listens on loopback only, also in a container: to be reachable it is given a certificate
# (SYNCLINE_TLS__CERT, SYNCLINE_TLS__KEY) or told outright, as above, that plain text is meant.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
# The slim image has gcc and libc's headers, which SQLite, zstd and ring are compiled with. protoc is not needed.
WORKDIR /src
COPY . .
# Downloaded crates and compiled dependencies live in caches that outlast this layer: a change of our own source
# compiles our own crates only. The binary is copied out because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --package syncline-cli --bin syncline \
 && install -D -m 0755 target/release/syncline /out/usr/local/bin/syncline \
 && install -d -m 0750 /out/var/lib/syncline

# glibc, libgcc and certificates of the same Debian, and the user `nonroot` (65532).
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="syncline" \
      org.opencontainers.image.description="Database synchronisation service" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/usr/local/bin/syncline /usr/local/bin/syncline
# The spool, and the database file of an embedded hub. A named volume takes over the owner.
COPY --from=build --chown=65532:65532 /out/var/lib/syncline /var/lib/syncline
USER 65532:65532
WORKDIR /var/lib/syncline
VOLUME ["/var/lib/syncline"]
EXPOSE 50051
# The binary is its own probe: there is no shell to run another one. Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["/usr/local/bin/syncline", "health", "--server", "http://127.0.0.1:50051"]
# SIGTERM drains: `drain_notice`, then at most `grace`, then a few seconds. `docker stop --time 45` leaves room.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/syncline"]
CMD ["serve"]
