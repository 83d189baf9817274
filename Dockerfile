# One image for both servers; compose.yaml says which one a container runs.
# Every RUN and CMD is a command that `make`, .ci/run or a test really runs (tests/test_packaging.py compares them).

FROM python:3.11-slim-bookworm AS base
RUN apt-get update -qq
RUN apt-get install -y -qq --no-install-recommends libgomp1
WORKDIR /app

FROM base AS build
RUN apt-get install -y -qq --no-install-recommends make
COPY . .
RUN make setup

FROM base
COPY --from=build /app /app
# State is mounted here; the folders belong to the user that serves.
RUN install -d -m 0700 -o 10001 -g 10001 var keys
USER 10001:10001
ENV PYTHONUNBUFFERED=1 PATH=/app/.venv/bin:$PATH
CMD ["python", "-m", "auth_server"]
