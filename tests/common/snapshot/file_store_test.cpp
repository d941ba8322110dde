#include "common/snapshot/file_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/common/snapshot/snapshot_maker.h"

namespace arancini::snapshot::test {
namespace {

namespace fs = std::filesystem;

class FileStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/arancini-snapshots-XXXXXX";
    root_ = ::mkdtemp(name);
    dir_ = root_ + "/state/snapshots";
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string put(FileStore& store, const SnapshotName& name, std::string_view text) {
    auto sink = store.create(name);
    if (!sink) return sink.error();
    if (std::string e = (*sink)->write(to_bytes(text)); !e.empty()) return e;
    return (*sink)->commit();
  }
  std::string get(FileStore& store, const SnapshotName& name) {
    auto source = store.open(name);
    if (!source) return source.error();
    std::string text(1000, 0);
    const auto n = (*source)->read(std::as_writable_bytes(std::span(text)));
    if (!n) return n.error();
    text.resize(*n);
    return text;
  }
  std::vector<std::string> files() {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(dir_)) out.push_back(entry.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }
  static unsigned mode(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 0777U;
  }

  std::string root_, dir_;
  const SnapshotName one_{0, 2, 1}, two_{0, 2, 2};
};

TEST_F(FileStoreTest, KeepsWhatIsCommitted) {
  FileStore store(dir_);
  EXPECT_TRUE(store.list()->empty());
  EXPECT_EQ(put(store, one_, "first"), "");
  EXPECT_EQ(put(store, two_, "second"), "");
  auto names = *store.list();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector{one_, two_}));
  EXPECT_EQ(get(store, one_), "first");
  EXPECT_EQ(get(store, two_), "second");
  EXPECT_EQ(mode(dir_), 0700U);
  EXPECT_EQ(mode(store.describe(one_)), 0600U);
  EXPECT_EQ(store.remove(one_), "");
  EXPECT_EQ(store.remove(one_), "");
  EXPECT_EQ(*store.list(), (std::vector{two_}));
}

TEST_F(FileStoreTest, WhatIsNotCommittedLeavesNoTrace) {
  FileStore store(dir_);
  {
    auto sink = store.create(one_);
    ASSERT_TRUE(sink) << sink.error();
    ASSERT_EQ((*sink)->write(to_bytes("half")), "");
    EXPECT_TRUE(store.list()->empty());
    EXPECT_EQ(files().size(), 1U);
  }
  EXPECT_TRUE(files().empty());
}

TEST_F(FileStoreTest, RemovesWhatADeadWriterLeftAndNothingElse) {
  FileStore store(dir_);
  ASSERT_EQ(put(store, one_, "first"), "");
  const std::string left = ".shard-1-of-2-00000000000000000009.snap.tmp";
  // Perhaps of a shard that has not locked it yet.
  const char* just_made = ".shard-7-of-8-00000000000000000001.snap.tmp";
  for (const char* name : {left.c_str(), just_made, ".other.tmp", "notes.txt"})
    std::ofstream(dir_ + "/" + name) << "x";
  FileStore other(dir_);
  auto living = other.create({1, 2, 10});
  ASSERT_TRUE(living) << living.error();
  ASSERT_EQ(put(store, two_, "second"), "");
  const auto names = files();
  EXPECT_EQ(std::count(names.begin(), names.end(), left), 0);
  EXPECT_EQ(names.size(), 6U);  // two snapshots, a living temporary file, a young one, two strangers
  EXPECT_EQ((*living)->write(to_bytes("third")), "");
  EXPECT_EQ((*living)->commit(), "");
  EXPECT_EQ(get(store, {1, 2, 10}), "third");
}

TEST_F(FileStoreTest, SetAsideIsKeptAndNotListed) {
  FileStore store(dir_);
  for (const char* text : {"bad", "worse"}) {
    ASSERT_EQ(put(store, one_, text), "");
    EXPECT_EQ(store.set_aside(one_), "");
    EXPECT_TRUE(store.list()->empty());
  }
  const std::string name = one_.to_string();
  EXPECT_EQ(files(), (std::vector{name + ".2.corrupt", name + ".corrupt"}));
}

TEST_F(FileStoreTest, SaysWhatIsWrong) {
  FileStore store(dir_);
  ASSERT_EQ(put(store, one_, "x"), "");
  EXPECT_NE(store.open(two_).error().find("No such file"), std::string::npos);
  fs::create_symlink("/etc/passwd", dir_ + "/" + two_.to_string());
  EXPECT_FALSE(store.open(two_));
  EXPECT_NE(store.set_aside({1, 2, 3}).find("No such file"), std::string::npos);
  fs::permissions(dir_, fs::perms::all);
  EXPECT_NE(store.list().error().find("other users may write there"), std::string::npos);
  FileStore nowhere("/proc/snapshots");
  EXPECT_FALSE(nowhere.create(one_));
}

}  // namespace
}  // namespace arancini::snapshot::test
