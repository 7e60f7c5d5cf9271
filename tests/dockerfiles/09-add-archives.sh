# Archives made by GNU tar, with owners, modes, links and a time of their own.
mkdir -p pack/dir/sub && echo file > pack/dir/file && echo deep > pack/dir/sub/deep && echo exec > pack/run
chmod 755 pack/run && chmod 700 pack/dir/sub && ln -s dir/file pack/soft && ln pack/run pack/hard
touch -d '2019-05-06 07:08:09' pack/dir/file
tar --create --file files.tar --directory pack --format gnu --sort name --mtime 2020-01-01 --owner 1:1234 --group 2:5678 .
gzip --keep --no-name files.tar && xz --keep files.tar && bzip2 --keep files.tar
echo 'just text' > not-an-archive.tar && echo plain > plain && gzip --no-name plain
rm -r pack
