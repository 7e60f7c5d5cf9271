mkdir -p pack/d && echo f > pack/f && echo g > pack/d/g && chmod 2750 pack/d && ln -s /abs pack/abs
touch -d '2019-05-06 07:08:09' pack/f
tar --create --file files.tar --directory pack --format posix --pax-option delete=atime,delete=ctime --sort name --mtime 2020-01-01 --owner 5 --group 6 ./d ./f ./abs
gzip --keep --no-name files.tar && zstd --quiet --keep files.tar && cp files.tar.gz misnamed.txt && cp files.tar a.glob && cp one b.glob
rm -r pack
