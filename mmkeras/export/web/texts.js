// All texts of the page in both languages. {0}, {1} are filled in.
import { facts } from "mmkeras/models.js";

const TEXTS = {
  // --- the page ---
  title: ["mmkeras: multimodal models in this page", "mmkeras：在网页里运行的多模态模型"],
  tagline: ["Multimodal models that run in this page. Nothing you show or say leaves this machine.", "多模态模型就在此页面中运行。您展示的和说的都不会离开这台设备。"],
  settings: ["Language and theme", "语言与主题"],
  dark: ["Dark", "深色"],
  light: ["Light", "浅色"],
  parts: ["Parts", "各部分"],
  describe: ["Describe", "看图说话"],
  draw: ["Draw", "文生图"],
  listen: ["Listen", "语音识别"],
  search: ["Search", "图像搜索"],
  teach: ["Teach", "教它"],
  about: ["About", "关于"],
  footer: ["mmkeras {0}. Works offline; makes no requests.", "mmkeras {0}。可离线使用，不发送任何请求。"],
  inside: ["Inside the model", "模型内部"],
  inside_hint: ["Every tensor from the input to the answer, in order. Open one to see it.", "从输入到答案的每个张量，依次排列。点开即可查看。"],
  took: ["Computed in {0} ms, here.", "在本机计算，用时 {0} 毫秒。"],
  temperature: ["Temperature", "温度"],
  channel: ["Channel", "通道"],
  channel_of: ["Channel {0}", "通道 {0}"],
  loading: ["Loading the model …", "正在加载模型……"],
  // --- inputs ---
  image: ["Image", "图像"],
  examples: ["Examples", "示例"],
  examples_hint: ["Every other example has a color and a shape that were never together in training.", "每隔一个示例，其颜色与形状的组合从未在训练中出现。"],
  example: ["Example {0}: {1}", "示例 {0}：{1}"],
  choose_image: ["Choose an image", "选择图像"],
  camera: ["Camera", "相机"],
  take: ["Take the picture", "拍照"],
  close: ["Close", "关闭"],
  // --- errors ---
  error_image: ["This file is not an image that the browser can read. Try a PNG or JPEG.", "浏览器无法读取此图像文件。请使用 PNG 或 JPEG。"],
  error_large: ["This image has more than 100 million pixels. Make it smaller first.", "此图像超过一亿像素，请先缩小。"],
  error_sound: ["This file has no sound that the browser can read. Try a WAV or MP3.", "浏览器无法读取此声音文件。请使用 WAV 或 MP3。"],
  error_microphone: ["There is no microphone that the page can use. Choose a file or an example.", "没有可用的麦克风。请选择文件或示例。"],
  error_permission: ["The microphone is not allowed for this page. Allow it in the browser's address bar, or choose a file or an example.", "此页面未获得麦克风权限。请在浏览器地址栏中允许，或选择文件或示例。"],
  error_camera: ["There is no camera that the page can use. Choose a file or an example.", "没有可用的相机。请选择文件或示例。"],
  error_permission_camera: ["The camera is not allowed for this page. Allow it in the browser's address bar, or choose a file or an example.", "此页面未获得相机权限。请在浏览器地址栏中允许，或选择文件或示例。"],
  error_silence: ["Nothing was heard: the clip is silent. Speak closer to the microphone.", "没有听到声音：录音是静音。请靠近麦克风说话。"],
  error_empty: ["Write some words first.", "请先输入文字。"],
  error_unknown: ["The model knows none of these words. It knows: {0} …", "模型不认识这些词。它认识：{0}……"],
  error_other: ["This did not work: {0}", "出错了：{0}"],
  // --- describe ---
  describe_lead: ["A captioner and a classifier look at a picture. Both learned from drawings of one colored shape.", "描述模型和分类器一起看图。它们只见过单个彩色图形的图画。"],
  caption: ["Caption", "描述"],
  words_hint: ["Choose a word to see where the model looked, and what else it could have said.", "选择一个词，查看模型关注的位置，以及它可能说的其他词。"],
  end: ["(end)", "（结束）"],
  next_word: ["Instead of “{0}”", "“{0}”的其他可能"],
  attributes: ["Attributes", "属性"],
  color: ["Color", "颜色"],
  place: ["Place", "位置"],
  shape: ["Shape", "形状"],
  size: ["Size", "大小"],
  attention_of: ["Attention of “{0}”", "“{0}”的注意力"],
  image_of: ["The image: {0}", "图像：{0}"],
  novel: ["This is unlike any training image (novelty {0}, in training nearly all are below {1}), so do not rely on the answer.", "此图像与训练图像都不相似（新奇度 {0}，训练中几乎都低于 {1}），答案不可靠。"],
  pixels: ["Pixels", "像素"],
  pixels_text: ["What the model sees: the image resized, and its red, green and blue.", "模型看到的：缩小后的图像，以及红、绿、蓝三个通道。"],
  features: ["Features", "特征"],
  features_text: ["The network turns the image into one vector for each cell of a grid. Each channel responds to something else.", "网络把图像变成网格，每格一个向量。每个通道对不同的内容作出反应。"],
  attention: ["Attention", "注意力"],
  attention_text: ["How much of each cell enters the context of each word. Bright is much; all maps share one scale.", "每个词的上下文中各格所占的比重。越亮越多，所有图使用同一刻度。"],
  probabilities: ["Probabilities of each step", "每一步的概率"],
  probabilities_text: ["The decoder's scores of the next word as probabilities. A low temperature sharpens them, a high one flattens them. The caption takes the highest.", "解码器对下一个词的打分，转为概率。温度低则更尖锐，温度高则更平缓。描述取最高者。"],
  classifier_features: ["Features of the classifier", "分类器的特征"],
  classifier_features_text: ["One vector for the whole image, from which every attribute is predicted. Blue is negative, red positive.", "整幅图像的一个向量，各属性都由它预测。蓝色为负，红色为正。"],
  class_probabilities: ["Probabilities of the attributes", "属性的概率"],
  class_probabilities_text: ["One distribution for each attribute.", "每个属性一个分布。"],
};

let current = 0;
export const languageNames = { en: "English", zh: "中文" };
export const language = () => ["en", "zh"][current];
export const setLanguage = (name) => { current = name === "zh" ? 1 : 0; };

/** The text of a key in the page's language. */
export const t = (key, ...values) => TEXTS[key][current].replace(/\{(\d)\}/g, (_, i) => values[i]);

/** The word for a class of the classifier. */
export const value = (attribute, name) => facts.words[language()][attribute][name];

/** The message for an error. Those that are expected are named by a key. */
export function error({ message, values = [] }) {
  return `error_${message}` in TEXTS ? t(`error_${message}`, ...values) : t("error_other", message);
}
