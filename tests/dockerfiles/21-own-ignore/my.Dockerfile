ARG BASE=busybox
FROM $BASE AS first
COPY . /first
FROM first AS wanted
ARG VALUE=default
ARG LATE
RUN echo "$VALUE ${LATE:-none}" > /value
FROM wanted AS not-wanted
RUN false
