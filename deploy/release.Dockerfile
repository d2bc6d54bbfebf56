# The image of a release: the binary that goreleaser built, and nothing else.
# deploy/Dockerfile builds the same from the source.
FROM scratch
ARG TARGETPLATFORM
COPY $TARGETPLATFORM/promptgen /promptgen
USER 65532:65532
EXPOSE 5005
STOPSIGNAL SIGTERM
ENTRYPOINT ["/promptgen"]
CMD ["serve", "--model", "/model", "--host", "0.0.0.0"]
